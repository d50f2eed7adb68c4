"""The systems, each as its documentation shows it, doing the same work with the same constant model.

A conversation holds all that was said before; each step is persisted where the system persists steps. Left
out: the measuring (`run`), and the model and the tool (`constant`).
"""

import asyncio
import json
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import constant
from agents import Agent, Runner, SQLiteSession, function_tool, set_tracing_disabled
from dbos import DBOS, SetWorkflowID
from ground import _on_free_ports, _start_tuned, own_environment
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.lab.server.lifecycle import end, ensure_server
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.lab.workers.process import start_process
from workshop_lib.temporal.connect import connect

LIMIT = timedelta(seconds=100)  # for a turn of ours, many others at once included


class System(Protocol):
    """What is compared.

    Attributes:
        name: in the table.
    """

    name: str

    def conversation(self) -> Any:
        """A new one; nothing is done yet."""

    async def ask(self, conversation: Any) -> str:
        """One turn; the model's answer."""

    async def stored(self, conversation: Any) -> int | None:
        """Bytes that are kept of this conversation, or of all where they cannot be told apart."""


class BareSdk:
    """The Agents SDK, nothing persisted."""

    name = "Agents SDK, nothing kept"

    def __init__(self) -> None:
        set_tracing_disabled(True)
        self._agent = Agent(
            name="assistant",
            instructions=constant.INSTRUCTIONS,
            model=constant.ConstantModel(),
            tools=[function_tool(constant.calculator)],
        )

    def conversation(self) -> list[Any]:
        return []

    async def ask(self, conversation: list[Any]) -> str:
        asked = [*conversation, {"role": "user", "content": constant.QUESTION}]
        result = await Runner.run(self._agent, asked)
        conversation[:] = result.to_input_list()
        return str(result.final_output)

    async def stored(self, conversation: list[Any]) -> int | None:
        return None


class SdkSession(BareSdk):
    """The Agents SDK with its own SQLite session: what was said is kept, steps are not."""

    name = "Agents SDK, SQLiteSession"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / "sessions.db"

    def conversation(self) -> Any:
        return SQLiteSession(uuid.uuid4().hex, self._file)

    async def ask(self, conversation: Any) -> str:
        result = await Runner.run(self._agent, constant.QUESTION, session=conversation)
        return str(result.final_output)

    async def stored(self, conversation: Any) -> int | None:
        rows = await conversation.get_items()
        return sum(len(json.dumps(row)) for row in rows)


class LangGraph:
    """LangGraph with its SQLite checkpointer: each step is written before the next one begins."""

    name = "LangGraph, SQLite, sync"

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "langgraph.db", check_same_thread=False)
        graph = StateGraph(MessagesState)
        graph.add_node("model", self._model)
        graph.add_node("tools", ToolNode([tool(constant.calculator)]))
        graph.add_edge(START, "model")
        graph.add_conditional_edges(
            "model", lambda state: "tools" if state["messages"][-1].tool_calls else END
        )
        graph.add_edge("tools", "model")
        self._graph = graph.compile(checkpointer=SqliteSaver(self._db))

    @staticmethod
    def _model(state: MessagesState) -> dict[str, Any]:
        messages = state["messages"]
        if messages[-1].type == "tool":
            return {"messages": [AIMessage(constant.ANSWER)]}
        call = {"name": constant.TOOL, "args": json.loads(constant.ARGUMENTS)}
        return {"messages": [AIMessage("", tool_calls=[call | {"id": f"call-{len(messages)}"}])]}

    def conversation(self) -> str:
        return uuid.uuid4().hex

    async def ask(self, conversation: str) -> str:
        return await asyncio.to_thread(self._ask, conversation)

    def _ask(self, conversation: str) -> str:
        state = self._graph.invoke(
            {"messages": [HumanMessage(constant.QUESTION)]},
            {"configurable": {"thread_id": conversation}},
            durability="sync",
        )
        return str(state["messages"][-1].content)

    async def stored(self, conversation: str) -> int | None:
        found = self._db.execute(
            "SELECT (SELECT coalesce(sum(length(checkpoint) + length(metadata)), 0) FROM checkpoints"
            " WHERE thread_id = ?1)"
            " + (SELECT coalesce(sum(length(value)), 0) FROM writes WHERE thread_id = ?1)",
            (conversation,),
        )
        return int(found.fetchone()[0])


class Dbos:
    """DBOS on SQLite: a workflow a turn, a step for each model call, for the tool and for what is kept."""

    name = "DBOS, SQLite"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "dbos.db"
        url = f"sqlite:///{self._file}"
        DBOS(config={"name": "peers", "system_database_url": url, "log_level": "ERROR"})
        self._said = sqlite3.connect(folder / "said.db", check_same_thread=False)
        self._said.execute("PRAGMA journal_mode=WAL")
        self._said.execute(
            "CREATE TABLE said (conversation, turn, item, PRIMARY KEY (conversation, turn))"
        )
        self._lock = threading.Lock()

        @DBOS.workflow()
        async def turn(conversation: str, turn: int, question: str) -> str:
            return await self._answer(conversation, turn, question)

        self._turn = turn
        DBOS.launch()

    def conversation(self) -> list[Any]:
        return [uuid.uuid4().hex, 0]

    async def ask(self, conversation: list[Any]) -> str:
        conversation[1] += 1
        with SetWorkflowID(f"{conversation[0]}-{conversation[1]}"):
            return str(await self._turn(*conversation, constant.QUESTION))

    async def _answer(self, conversation: str, turn: int, question: str) -> str:
        messages = self._read(conversation, turn)
        messages.append({"role": "user", "content": question})
        while True:
            step = {"name": "plan"}
            answer = await DBOS.run_step_async(step, self._model, messages)
            messages.append(answer)
            if not answer.get("call"):
                break
            result = await DBOS.run_step_async({"name": "tool"}, self._tool, answer["call"])
            messages.append({"role": "tool", "content": result})
        kept = json.dumps(messages[-4:])
        await DBOS.run_step_async({"name": "keep"}, self._keep, conversation, turn, kept)
        return str(answer["content"])

    @staticmethod
    async def _model(messages: list[dict[str, Any]]) -> dict[str, Any]:
        if messages[-1]["role"] == "tool":
            return {"role": "assistant", "content": constant.ANSWER}
        call = {"id": f"call-{len(messages)}", "name": constant.TOOL}
        return {"role": "assistant", "call": call | {"arguments": constant.ARGUMENTS}}

    @staticmethod
    async def _tool(call: dict[str, Any]) -> str:
        return constant.calculator(**json.loads(call["arguments"]))

    def _read(self, conversation: str, turn: int) -> list[dict[str, Any]]:
        with self._lock:
            rows = self._said.execute(
                "SELECT item FROM said WHERE conversation = ? AND turn < ? ORDER BY turn",
                (conversation, turn),
            ).fetchall()
        return [item for (row,) in rows for item in json.loads(row)]

    async def _keep(self, conversation: str, turn: int, kept: str) -> None:
        with self._lock, self._said:
            self._said.execute(
                "INSERT OR REPLACE INTO said VALUES (?, ?, ?)", (conversation, turn, kept)
            )

    async def stored(self, conversation: list[Any]) -> int | None:
        like = f"{conversation[0]}-%"
        with sqlite3.connect(self._file) as db:
            total = 0
            for table in ("workflow_status", "operation_outputs"):
                names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
                size = " + ".join(f"coalesce(length({name}), 0)" for name in names)
                found = db.execute(
                    f"SELECT coalesce(sum({size}), 0) FROM {table} WHERE workflow_uuid LIKE ?",
                    (like,),
                )
                total += int(found.fetchone()[0])
        said = self._said.execute(
            "SELECT coalesce(sum(length(item)), 0) FROM said WHERE conversation = ?",
            (conversation[0],),
        )
        return total + int(said.fetchone()[0])


class Workshop:
    """A loop of this workshop: a dev server with its database file, one worker process."""

    def __init__(self, name: str, client: Any, loop: str, task_queue: str) -> None:
        self.name = name
        self._make: Callable[[], ChatClient] = lambda: ChatClient(
            client, loop, task_queue=task_queue
        )

    def conversation(self) -> ChatClient:
        return self._make()

    async def ask(self, conversation: ChatClient) -> str:
        return (await conversation.send(constant.QUESTION, timeout=LIMIT)).text

    async def stored(self, conversation: ChatClient) -> int | None:
        found = await conversation.handle.describe()
        return int(found.raw_description.workflow_execution_info.history_size_bytes)


async def all_systems(stack: AsyncExitStack, folder: Path) -> list[System]:
    """Every system, running; the stack stops them.

    The workshop's loops run as a service would have them, but for the last row, which is what learners have.
    """
    stack.callback(DBOS.destroy)  # last of all: from its start on, the loop's threads are DBOS's
    stack.enter_context(own_environment(folder))
    pid, address = await asyncio.to_thread(_on_free_ports, _start_tuned, "file", folder)
    stack.push_async_callback(asyncio.to_thread, end, pid)
    os.environ["TEMPORAL_ADDRESS"] = address
    server = await asyncio.to_thread(ensure_server, state_dir=folder)
    await ensure_namespaces(server)
    served = orchestrator()
    activities = [
        constant.plan_constantly if made.__name__ == "plan_next_action" else made
        for made in served.activities
    ]
    plugins = [constant.constant_plugin, *served.client_plugins[1:]]
    spec = replace(
        served,
        name="constant",
        task_queue="constant",
        activities=activities,
        client_plugins=plugins,
    )
    for each, env in ((spec, {"WORKSHOP_COMPRESS": "on"}), (served, {})):
        worker = await start_process(each, env=env, timeout=60)
        stack.push_async_callback(asyncio.to_thread, worker.stop)
    client = await connect(spec.namespace)
    return [
        BareSdk(),
        SdkSession(folder),
        LangGraph(folder),
        Dbos(folder),
        Workshop("workshop, manual", client, "manual", spec.task_queue),
        Workshop("workshop, SDK", client, "sdk", spec.task_queue),
        Workshop("workshop, manual, LiteLLM and rules", client, "manual", served.task_queue),
    ]
