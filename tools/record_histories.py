"""Record a run of every workflow of the agents anew: `tests/histories/<name>.json`.

    uv run python tools/record_histories.py [NAME ...]

A test replays these histories with today's code. One that does not replay any more says that chats and
repairs which run at the moment of an update would break: guard the change with `workflow.patched`, or, where
no run can be that old, record anew. Offline model, servers of its own, and nothing of this machine in the
files.
"""

import argparse
import asyncio
import base64
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

PROJECT_ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(PROJECT_ROOT / "tests"))

from notebook_runner import forget_learners_settings, isolated_state  # noqa: E402
from pydantic import BaseModel  # noqa: E402
from temporalio.client import Client, WorkflowHandle  # noqa: E402

from workshop_lib.agents.chat import ChatStart, SessionLimits  # noqa: E402
from workshop_lib.agents.conversation.results import REFERENCE  # noqa: E402
from workshop_lib.agents.conversation.spending import Budget  # noqa: E402
from workshop_lib.agents.loops.manual import ManualChat  # noqa: E402
from workshop_lib.agents.sessions import ChatClient  # noqa: E402
from workshop_lib.agents.worker import orchestrator  # noqa: E402
from workshop_lib.lab.history import history_of  # noqa: E402
from workshop_lib.lab.lessons.code_changes import (  # noqa: E402
    Added,
    Change,
    Deprecated,
    Patched,
)
from workshop_lib.lab.server import lifecycle as server  # noqa: E402
from workshop_lib.lab.server.namespaces import ensure_namespaces  # noqa: E402
from workshop_lib.lab.services.mcp_servers import ensured  # noqa: E402
from workshop_lib.llm.gateway import warm_up  # noqa: E402
from workshop_lib.repair.client import (  # noqa: E402
    KINDS,
    DecisionRefused,
    RepairClient,
    start_run,
)
from workshop_lib.repair.proactive_client import ProactiveClient  # noqa: E402
from workshop_lib.repair.states import (  # noqa: E402
    ProactiveStart,
    RepairStart,
    RepairStatus,
    State,
)
from workshop_lib.repair.worker import repair as repair_worker  # noqa: E402
from workshop_lib.settings import get_settings, reload_settings  # noqa: E402
from workshop_lib.teams.finance.worker import finance  # noqa: E402
from workshop_lib.teams.it.worker import it  # noqa: E402
from workshop_lib.teams.records import read_records  # noqa: E402
from workshop_lib.temporal.connect import connect  # noqa: E402

FOLDER = PROJECT_ROOT / "tests" / "histories"
IDENTITY = "recorded"  # instead of process and host
STATE = "/state"  # instead of the folder that reports were written to
SECONDS = 180
# A local tool, both teams at once, an error of a team, one that the contract refuses, and a follow-up.
CONVERSATION = (
    "What is 15 * 23?",
    "What is my IP address and the stock price of NVDA?",
    "What's the stock price of ZZZZ?",
    "Calculate ROI for $10,000 at 5000% over 10 years",
    "Get JIRA metrics for project DEMO-456",
    "And for WEB-101?",
)
COMMAND = "uv run python tools/record_histories.py"
Run = WorkflowHandle[Any, Any]


async def converse(client: Client, loop: str, stream: bool = False) -> Run:
    """The conversation, held with a loop and ended in good order."""
    session = f"recorded-{loop}" + ("-streaming" if stream else "")
    chat = ChatClient(client, loop, session, start=ChatStart(user="ada", stream=stream))
    for message in CONVERSATION:
        print(f"{loop}: {(await chat.send(message)).text}")
    await chat.end()
    await chat.handle.result()
    return chat.handle


async def stopped(client: Client, loop: str) -> Run:
    """A conversation whose first turn is stopped in the model, and whose second is answered."""
    chat = ChatClient(client, loop, f"stopped-{loop}", start=ChatStart(user="ada"))
    _set_latency("60000")
    sending = asyncio.create_task(chat.send(CONVERSATION[1]))
    await asyncio.sleep(2)
    print(f"{loop}: {(await chat.stop()).text}")
    assert (await sending).stopped
    _set_latency("0")
    print(f"{loop}: {(await chat.send(CONVERSATION[0])).text}")
    await chat.end()
    await chat.handle.result()
    return chat.handle


async def continued(client: Client, loop: str, stream: bool = False) -> Run:
    """The second run of three of a session: it goes on from one, and another goes on from it."""
    start = ChatStart(user="ada", stream=stream, limits=SessionLimits(updates=2))
    chat = ChatClient(client, loop, f"continued-{loop}-{stream}", start=start)
    for message in CONVERSATION[:3]:
        print(f"{loop}: {(await chat.send(message)).text}")
    second = (await chat.handle.describe()).run_id
    for message in CONVERSATION[3:]:
        print(f"{loop}: {(await chat.send(message)).text}")
    await chat.end()
    await chat.handle.result()
    return client.get_workflow_handle(chat.workflow_id, run_id=second)


async def forked(client: Client, loop: str) -> Run:
    """A session that goes on from the first turn of another."""
    chat = ChatClient(client, loop, f"forked-{loop}-origin", start=ChatStart(user="ada"))
    for message in CONVERSATION[:3]:
        print(f"{loop}: {(await chat.send(message)).text}")
    fork, reply = await chat.fork(2, CONVERSATION[4], session=f"forked-{loop}")
    print(f"{loop}: {reply.text}\n{loop}: {(await fork.send(CONVERSATION[5])).text}")
    for session in (chat, fork):
        await session.end()
        await session.handle.result()
    return fork.handle


async def summarised(client: Client, loop: str) -> Run:
    """A conversation whose beginning is summed up, and known afterwards."""
    chat = ChatClient(client, loop, f"summarised-{loop}", start=ChatStart(user="ada"))
    await chat.send("My door code is 4471.")
    for message in 2 * CONVERSATION[:5]:
        print(f"{loop}: {(await chat.send(message)).text}")
    print(f"{loop}: {(await chat.send('What is my door code?')).text}")
    await chat.end()
    await chat.handle.result()
    return chat.handle


async def waited(client: Client, loop: str) -> Run:
    """A session whose budget holds no model call; one message waits until it is raised, one is stopped."""
    poor, rich = Budget(tokens=1_000), Budget(tokens=100_000)
    chat = ChatClient(client, loop, f"waited-{loop}", start=ChatStart(user="ada", budget=poor))
    sending = asyncio.create_task(chat.send(CONVERSATION[0]))
    await asyncio.sleep(2)
    print(f"{loop}: {(await chat.set_budget(rich)).waits}")
    print(f"{loop}: {(await sending).text}")
    await chat.set_budget(poor)
    sending = asyncio.create_task(chat.send(CONVERSATION[1]))
    await asyncio.sleep(2)
    print(f"{loop}: {(await chat.stop()).text}")
    await sending
    await chat.set_budget(rich)
    print(f"{loop}: {(await chat.send(CONVERSATION[5])).text}")
    await chat.end()
    await chat.handle.result()
    return chat.handle


async def kept(client: Client, loop: str) -> Run:
    """A team answers at length, all of it is kept, and its second part is asked for."""
    chat = ChatClient(client, loop, f"kept-{loop}", start=ChatStart(user="ada"))
    prices = read_records("finance")["prices"]
    wordy = prices["NVDA"] | {"company": "NVIDIA Corporation of Santa Clara, " * 90}
    with patch.dict(prices, NVDA=wordy):
        print(f"{loop}: {(await chat.send('What is the stock price of NVDA?')).text[:100]}")
    [step] = (await history_of(chat.handle)).named("keep_result")
    found = REFERENCE.search(step.result)
    assert found
    print(f"{loop}: {(await chat.send(f'Read the result {found[1]}, part 2')).text[-100:]}")
    await chat.end()
    await chat.handle.result()
    return chat.handle


async def changed(client: Client, change: type[Change]) -> Run:
    """A short conversation, held with changed code."""
    name = f"{change.__name__.lower()}-manual"
    spec = replace(orchestrator(), task_queue=name, workflows=[ManualChat])
    async with spec.build(client, interceptors=[change()]):
        chat = ChatClient(client, "manual", name, task_queue=name, start=ChatStart(user="ada"))
        print(f"{name}: {(await chat.send(CONVERSATION[0])).text}")
        await chat.end()
        await chat.handle.result()
    return chat.handle


def _set_latency(milliseconds: str) -> None:
    """How long a call of the model lasts from now on."""
    os.environ["OFFLINE_LATENCY_MS"] = milliseconds
    reload_settings()


async def approve_a_part(client: Client, found: bool) -> Run:
    """A repair whose plan is decided wrongly first, and then in part."""
    start = RepairStart(today=get_settings().today, user=get_settings().user_name)
    repair = RepairClient(client, await _begun(client, "repair", start, found))
    await repair.wait_for(State.PENDING_APPROVAL)
    plan = await repair.plan()
    assert plan
    try:
        await repair.approve("0" * len(plan.digest), decided_by="ada")
    except DecisionRefused as error:
        print(f"repair: {error.what}")
    wanted = [proposal.proposal_id for proposal in plan.proposals][:3]
    await repair.approve(plan.digest, decided_by="ada", proposals=wanted)
    print(f"repair: {await repair.outcome()}")
    return repair.handle


async def two_days(client: Client, found: bool) -> Run:
    """A proactive agent whose first plan is rejected and whose second one is approved."""
    # By then Harry's payment is late, of which the agent is less sure than that it would act alone.
    day = date(2025, 7, 1)
    start = ProactiveStart(today=day, user=get_settings().user_name)
    agent = ProactiveClient(client, await _begun(client, "proactive", start, found))

    def is_in(cycle: int, state: State) -> Callable[[RepairStatus], bool]:
        return lambda status: (status.cycle, status.state) == (cycle, state)

    await agent.wait_until(is_in(1, State.PENDING_APPROVAL))
    await agent.reject(await _digest(agent), decided_by="ada", comment="not today")
    await agent.wait_until(is_in(1, State.WAITING))
    await agent.stop_waiting()
    await agent.wait_until(is_in(2, State.PENDING_APPROVAL))
    await agent.approve(await _digest(agent), decided_by="ada")
    await agent.wait_until(is_in(2, State.WAITING))
    await agent.request_exit()
    print(f"proactive: {await agent.stopped()}")
    return agent.handle


async def _begun(client: Client, kind: str, start: BaseModel, found: bool) -> str:
    """Start a repair or an agent: as our client does, or without search attributes, as it once did."""
    name = f"recorded-{kind}" + "-found" * found
    if found:
        await start_run(client, kind, name, start, None)
    else:
        queue = get_settings().repair_queue
        await client.start_workflow(KINDS[kind], start, id=name, task_queue=queue)
    return name


async def _digest(agent: RepairClient) -> str:
    plan = await agent.plan()
    assert plan
    return plan.digest


CHATS: dict[str, Callable[[Client], Awaitable[Run]]] = {
    "manual": partial(converse, loop="manual"),
    "sdk": partial(converse, loop="sdk"),
    "sdk_streaming": partial(converse, loop="sdk", stream=True),
    "mcp": partial(converse, loop="mcp"),
}
REPAIRS: dict[str, Callable[[Client], Awaitable[Run]]] = {
    "repair": partial(approve_a_part, found=False),
    "repair_found": partial(approve_a_part, found=True),
    "proactive": partial(two_days, found=False),
    "proactive_found": partial(two_days, found=True),
}
LASTING: dict[str, Callable[[Client], Awaitable[Run]]] = {
    "stopped_manual": partial(stopped, loop="manual"),
    "stopped_sdk": partial(stopped, loop="sdk"),
    "forked_manual": partial(forked, loop="manual"),
    "forked_sdk": partial(forked, loop="sdk"),
    "summarised_manual": partial(summarised, loop="manual"),
    "summarised_sdk": partial(summarised, loop="sdk"),
    "kept_manual": partial(kept, loop="manual"),
    "kept_sdk": partial(kept, loop="sdk"),
    "waited_manual": partial(waited, loop="manual"),
    "waited_sdk": partial(waited, loop="sdk"),
    "continued_manual": partial(continued, loop="manual"),
    "continued_sdk": partial(continued, loop="sdk", stream=True),
}
CHANGED: dict[str, Callable[[Client], Awaitable[Run]]] = {
    "patched_manual": partial(changed, change=Patched),
    "deprecated_manual": partial(changed, change=Deprecated),
    "added_manual": partial(changed, change=Added),
}
RECORDINGS = CHATS | LASTING | REPAIRS | CHANGED  # name of the file: what is recorded
SPECS = (it, finance, orchestrator, repair_worker)


async def record(names: list[str], folder: Path) -> dict[str, str]:
    """Let it all happen; returns the histories as JSON by name."""
    found = await asyncio.to_thread(server.ensure_server, in_memory=True)
    await ensure_namespaces(found)
    await warm_up()
    histories = {}
    async with asyncio.timeout(SECONDS), AsyncExitStack() as running:
        for make_spec in SPECS:
            spec = make_spec()
            plugins = [make() for make in spec.client_plugins]
            client = await connect(spec.namespace, plugins=plugins, identity=IDENTITY)
            await running.enter_async_context(spec.build(client))
        if "mcp" in names:
            await running.enter_async_context(ensured())
        client = await connect(identity=IDENTITY)
        for name in names:
            handle = await RECORDINGS[name](client)
            histories[name] = cleaned((await handle.fetch_history()).to_json(), str(folder))
    return histories


def cleaned(history: str, folder: str) -> str:
    """A history without what only this machine has: stack traces, which no replay reads, and a folder."""
    return json.dumps(_cleaned(json.loads(history), folder), separators=(",", ":")) + "\n"


def _cleaned(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {
            key: _data(inner, folder) if key == "data" else _cleaned(inner, folder)
            for key, inner in value.items()
            if key != "stackTrace"
        }
    if isinstance(value, list):
        return [_cleaned(item, folder) for item in value]
    return value.replace(folder, STATE) if isinstance(value, str) else value


def _data(payload: str, folder: str) -> str:
    data = base64.b64decode(payload).replace(folder.encode(), STATE.encode())
    return base64.b64encode(data).decode()


def main() -> None:
    """Record and write what is asked for, or all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RECORDINGS))
    names = parser.parse_args().names or list(RECORDINGS)
    if unknown := sorted(set(names) - set(RECORDINGS)):
        parser.error(f"no recording {', '.join(unknown)}; there are {', '.join(RECORDINGS)}")
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)  # the errors are meant
    forget_learners_settings()
    with isolated_state() as folder:
        reload_settings()
        histories = asyncio.run(record(names, folder))
    FOLDER.mkdir(exist_ok=True)
    for name, text in histories.items():
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
