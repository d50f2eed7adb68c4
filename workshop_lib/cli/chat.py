"""`workshop ask`, `chat` and `sessions`: the chat agent at a terminal.

Left out: what a session is (`agents.chat`, `agents.sessions`).
"""

import asyncio
import contextlib
import shlex
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from temporalio.client import Client
from temporalio.service import RPCError
from typer.core import TyperGroup

from workshop_lib import harmless
from workshop_lib.agents.chat import ChatStart
from workshop_lib.agents.deleting import find_runs
from workshop_lib.agents.session_list import list_sessions
from workshop_lib.agents.sessions import (
    LOOPS,
    ChatClient,
    MessageRefused,
    check_message,
)
from workshop_lib.agents.streaming import stream_reply
from workshop_lib.cli.support import (
    Answer,
    Json,
    command,
    connected,
    failing,
    name_of,
    one_of,
    serving,
    show,
)
from workshop_lib.edge import say
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.services.mcp_servers import ensured
from workshop_lib.mcp.addresses import Transport as McpTransport
from workshop_lib.settings import get_settings
from workshop_lib.temporal.chaos.experiment import Experiment
from workshop_lib.temporal.chaos.plan import ChaosPlan
from workshop_lib.temporal.chaos.plan_file import chaos_plan

LEAVE = ("quit", "exit", "bye")
INDENT = "       "  # so that a line of a message does not look like the beginning of another one
SPEAKERS = {"user": "You", "agent": "Agent", "note": "Note"}
WAITING = "No reply yet: {} or a tool takes its time. A model that fails is asked again for three minutes."

app = typer.Typer()
sessions_app = typer.Typer(invoke_without_command=True)
app.add_typer(sessions_app, name="sessions")

Loop = Annotated[
    str,
    typer.Option(help="Which loop answers.", metavar="|".join(LOOPS), callback=one_of(LOOPS)),
]
Transport = Annotated[
    McpTransport, typer.Option("--mcp-transport", help="How the loop mcp reaches its servers.")
]
Chaos = Annotated[
    str | None, typer.Option(help="A plan of what goes wrong meanwhile.", metavar="PLAN.yaml")
]
Session = Annotated[
    str | None,
    typer.Option(help="Name of the session to start or to rejoin.", callback=name_of("session")),
]


@command(app)
async def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    loop: Loop = "manual",
    session: Session = None,
    mcp_transport: Transport = "http",
    chaos: Chaos = None,
    as_json: Json = False,
) -> Answer:
    """Ask one question and print the reply."""
    check_message(question)  # server and model library take seconds to start
    plan = chaos_plan(Path(chaos)) if chaos is not None else None
    async with _chat_worker(loop, mcp_transport, plan) as (client, experiment):
        # What goes wrong hangs on the session's name up to its ~: the same plan is the same day.
        name = session or (f"chaos-{plan.digest}~{uuid.uuid4().hex[:6]}" if plan else None)
        chat = ChatClient(client, loop, name, start=ChatStart(mcp_transport=mcp_transport))
        begun = time.perf_counter()
        late = asyncio.get_running_loop().call_later(
            5, say, WAITING.format(get_settings().model.name)
        )
        try:
            reply = await chat.send(question)
        finally:
            late.cancel()
        milliseconds = round((time.perf_counter() - begun) * 1000)
        if session is None:  # nobody knows its name
            await _end(chat)
    if reply.notice:
        say(reply.notice)
    report = experiment.report() if experiment else None
    if report:
        say(str(report))
    document: dict[str, Any] = {
        "reply": reply.text,
        "workflow_id": chat.workflow_id,
        "model": get_settings().model.name,
        "model_calls": reply.model_calls,
        "tool_calls": reply.tool_calls,
        "milliseconds": milliseconds,
        "failed": reply.failed,
    }
    if report:
        document["chaos"] = report.lines
    return Answer(document, reply.text, reply.failed)


@command(app)
async def chat(
    loop: Loop = "manual", session: Session = None, mcp_transport: Transport = "http"
) -> None:
    """Talk to the agent; leave with quit, exit or bye. Ctrl-C stops a reply, twice leaves."""
    async with _chat_worker(loop, mcp_transport) as (client, _):
        # Only the SDK's loops can stream; of the other the reply comes in one piece.
        start = ChatStart(stream=loop != "manual", mcp_transport=mcp_transport)
        talking = ChatClient(client, loop, session, start=start)
        for line in await talking.transcript() if session else []:
            show(f"{SPEAKERS[line.speaker]}: {harmless.block(line.text, INDENT)}")
        say(f"Session {talking.session}. Leave with {', '.join(LEAVE)}.")
        while (message := await asyncio.to_thread(_read_message)) is not None:
            if message.strip().lower() in LEAVE:
                break
            if not message.strip():
                continue
            try:
                show("Agent: ", end="")
                with _interrupt_stops(talking):
                    async for piece in stream_reply(client, talking, message):
                        if isinstance(piece, str):
                            show(harmless.block(piece, INDENT), end="")
                        else:  # the last item
                            show(f"\n{INDENT}({piece.notice})" if piece.notice else "")
            except MessageRefused as refusal:
                show(str(refusal))
        if session is None:
            await _end(talking)
        else:
            again = f"workshop chat --loop {loop} --session {shlex.quote(session)}"
            say(f"The session stays open: `{again}`.")


Name = Annotated[str, typer.Argument(help="Name of the session.", callback=name_of("session"))]
Mine = Annotated[bool, typer.Option("--mine", help="Those that USER_NAME has started.")]


@sessions_app.callback()
def sessions(context: typer.Context, mine: Mine = False, as_json: Json = False) -> None:
    """List the chat sessions that the server knows; delete one, or go on from an earlier turn of it."""
    if context.invoked_subcommand is None:
        group = context.command
        assert isinstance(group, TyperGroup)
        run = group.commands["list"].callback
        assert run
        run(mine=mine, as_json=as_json)


@command(sessions_app, "list")
async def listed(mine: Mine = False, as_json: Json = False) -> Answer:
    """List the chat sessions that the server knows."""
    async with connected() as client, asyncio.timeout(20):
        owner = get_settings().user_name if mine else None
        infos = [info async for info in list_sessions(client, owner)]
    lines = [
        f"{harmless.line(info.session):<20} {info.loop:<8} {info.status:<10} {str(info.started)[:16]}"
        for info in infos
    ]
    none = "No sessions yet. Start one with `workshop chat --session NAME`."
    return Answer(infos, "\n".join(lines) or none)


@command(sessions_app)
async def delete(
    name: Name,
    loop: Loop = "manual",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> Answer:
    """Delete a session, and say what remains elsewhere."""
    async with connected() as client:
        chat = ChatClient(client, loop, name)
        await find_runs(client, chat.workflow_id)  # before anybody is asked
        if not yes and not typer.confirm(f"Delete the session {harmless.line(name)}?", err=True):
            raise typer.Exit(1)
        deletion = await chat.delete()
    gone = f"Deleted: {deletion.runs} runs, {deletion.results} large results."
    return Answer(deletion, "\n".join([gone, *deletion.remains]))


@command(sessions_app)
async def fork(
    name: Name,
    turn: Annotated[int, typer.Argument(help="Number of the message that is changed.", min=1)],
    message: Annotated[str, typer.Argument(help="What takes its place.")],
    loop: Loop = "manual",
    session: Session = None,
    mcp_transport: Transport = "http",
    yes: Annotated[
        bool, typer.Option("--yes", help="What was changed from there on may stay as it is.")
    ] = False,
    as_json: Json = False,
) -> Answer:
    """Change an earlier message: a new session goes on from there."""
    check_message(message)
    async with _chat_worker(loop, mcp_transport) as (client, _):
        origin = ChatClient(client, loop, name)
        new, reply = await origin.fork(turn, message, session=session, confirmed=yes)
    say(f"Session {new.session}.")
    return Answer({"session": new.session, **reply.model_dump()}, reply.text, reply.failed)


@command(sessions_app)
async def accept(
    name: Name,
    tool: Annotated[str, typer.Argument(help="Its name, or TEAM/NAME. Left out: list them.")] = "",
    fingerprint: Annotated[
        str, typer.Option(help="Beginning of the fingerprint that you have looked at.")
    ] = "",
    as_json: Json = False,
) -> Answer:
    """Accept a tool of an MCP server that has changed, and is held back from the agent."""
    async with serving(("orchestrator",)) as client:
        session = ChatClient(client, "mcp", name)
        if tool:
            held = await session.accept_tool(tool, fingerprint)
            return Answer(held, f"Accepted: {held.team}/{held.name} {held.now[:12]}.")
        tools = await session.held_tools()
    lines = [
        f"{one.team}/{one.name} {one.now[:12]}: {harmless.line(one.description)}" for one in tools
    ]
    return Answer(tools, "\n".join(lines) or "No tool of this session is held back.")


@asynccontextmanager
async def _chat_worker(
    loop: str, transport: McpTransport, plan: ChaosPlan | None = None
) -> AsyncIterator[tuple[Client, Experiment | None]]:
    """A server, and workers that serve the chats and the teams while the block runs.

    Args:
        plan: of what goes wrong in them.
    """
    experiment = None
    async with AsyncExitStack() as running:
        if plan:
            going_wrong = failing(plan, "orchestrator", ("it", "finance"))
            client, experiment = await running.enter_async_context(going_wrong)
        else:
            client = await running.enter_async_context(serving(("it", "finance", "orchestrator")))
        if loop == "mcp" and transport == "http":  # over stdio the worker starts its servers itself
            await running.enter_async_context(ensured())
        yield client, experiment


@contextlib.contextmanager
def _interrupt_stops(chat: ChatClient) -> Iterator[None]:
    """While the block runs, Ctrl-C stops the turn, and a second one ends the program as it always does."""
    ends = signal.getsignal(signal.SIGINT)
    loop = asyncio.get_running_loop()
    stopping: set[asyncio.Task[None]] = set()

    def listen() -> None:
        signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(interrupted))

    def interrupted() -> None:
        signal.signal(signal.SIGINT, ends)
        say("Stopping this reply. Ctrl-C once more leaves.")
        stopping.add(loop.create_task(stop()))

    async def stop() -> None:
        try:
            await chat.stop()
        except (WorkshopError, RPCError) as error:  # such as: it has not begun
            say(str(error))
            listen()

    listen()
    try:
        yield
    finally:
        for task in stopping:
            task.cancel()
        signal.signal(signal.SIGINT, ends)


async def _end(chat: ChatClient) -> None:
    """End a session and see it to its end, while there is a worker to do it."""
    await chat.end()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await chat.handle.result()


def _read_message() -> str | None:
    """A line from the terminal, or None at its end."""
    try:
        return input("You: ")
    except EOFError:
        return None
