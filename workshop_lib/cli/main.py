"""The `workshop` command.

It only reads arguments, calls the library and prints. Imports that take long stand inside the commands, so
that `workshop --help` is quick. Exit status: 0, 1 (it failed), 2 (wrong usage), 130 (Ctrl-C); what becomes
of it where stdout cannot be written is said in `edge`. With `--json`, stdout holds one JSON document, in
ASCII, and nothing else; everything for people goes to stderr.
"""

import asyncio
import contextlib
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workshop_lib import edge, harmless
from workshop_lib.cli.mcp import McpTransport, mcp_app
from workshop_lib.cli.repair import repair_app
from workshop_lib.cli.services import down, status, up
from workshop_lib.cli.support import (
    Json,
    leave_in_order,
    name_of,
    patience,
    prepare,
    run,
    serving,
    show,
    show_json,
    start_server,
)
from workshop_lib.edge import say

if TYPE_CHECKING:
    from temporalio.client import Client

    from workshop_lib.agents.sessions import ChatClient
    from workshop_lib.temporal.worker import WorkerSpec

app = typer.Typer(
    help="A workshop on durable AI agents. Without a command: the lab, with JupyterLab.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (up, down, status):
    app.command()(command)
notebook_app = typer.Typer(help="Your copies of the notebooks.", no_args_is_help=True)
app.add_typer(notebook_app, name="notebook")
app.add_typer(mcp_app, name="mcp")
app.add_typer(repair_app, name="repair")

LEAVE = ("quit", "exit", "bye")
INDENT = "       "  # so that a line of a message does not look like the beginning of another one
WAITING = "No reply yet: {} or a tool takes its time. A model that fails is asked again for three minutes."


class LoopName(StrEnum):
    """The loops that can answer."""

    MANUAL = "manual"
    SDK = "sdk"
    MCP = "mcp"


Loop = Annotated[LoopName, typer.Option(help="Which loop answers.")]
Transport = Annotated[
    McpTransport, typer.Option("--mcp-transport", help="How the loop mcp reaches its servers.")
]
Session = Annotated[
    str | None,
    typer.Option(help="Name of the session to start or to rejoin.", callback=name_of("session")),
]


def main() -> None:
    """Entry point: what goes wrong becomes a few lines on stderr and status 1."""
    edge.begin()
    status: str | int | None
    try:
        status = app()
    except KeyboardInterrupt:
        status = 130
    except SystemExit as ended:
        status = ended.code
    except BaseException as error:
        edge.say_error(error)
        status = 1
    if registry := sys.modules.get("workshop_lib.lab.registry"):
        registry.stop_all()
    edge.end(status)


@app.callback(invoke_without_command=True)
def lab(
    context: typer.Context,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    port: Annotated[int | None, typer.Option(help="JupyterLab's port.", min=1, max=65535)] = None,
) -> None:
    """Start the dev server, examine the machine and open JupyterLab; stop what was started at the end."""
    if context.invoked_subcommand is not None:
        return
    from workshop_lib.lab import doctor
    from workshop_lib.lab.jupyter import start as jupyter

    leave_in_order()
    server = start_server()
    try:
        run(prepare(server))
        findings = run(doctor.examine())
        say(doctor.render(findings))
        arguments = [f"--port={port}"] if port else []
        status = jupyter.run_jupyter(browser=browser, say=say, arguments=arguments)
    finally:
        if server.started:
            from workshop_lib.lab.server.lifecycle import stop

            signal.signal(signal.SIGINT, signal.SIG_IGN)  # one Ctrl-C too many must not leave it
            stop()
            say("Dev server stopped. Its data stays in the state folder.")
    raise typer.Exit(1 if status else 0)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    loop: Loop = LoopName.MANUAL,
    session: Session = None,
    mcp_transport: Transport = McpTransport.HTTP,
    as_json: Json = False,
) -> None:
    """Ask one question and print the reply."""
    from workshop_lib.agents.sessions import check_message
    from workshop_lib.settings import get_settings

    check_message(question)  # server and model library take seconds to start

    async def answer() -> dict[str, Any]:
        async with chat_worker(mcp_http=_needs_servers(loop, mcp_transport)) as client:
            from workshop_lib.agents.chat import ChatStart
            from workshop_lib.agents.sessions import ChatClient

            start = ChatStart(mcp_transport=mcp_transport.value)
            chat = ChatClient(client, loop, session, start=start)
            begun = time.perf_counter()
            async with patience(WAITING.format(get_settings().model.name)):
                reply = await chat.send(question)
            milliseconds = round((time.perf_counter() - begun) * 1000)
            if session is None:  # nobody knows its name
                await end(chat)
            if reply.notice:
                say(reply.notice)
            return {
                "reply": reply.text,
                "workflow_id": chat.workflow_id,
                "model": get_settings().model.name,
                "model_calls": reply.model_calls,
                "tool_calls": reply.tool_calls,
                "milliseconds": milliseconds,
                "failed": reply.failed,
            }

    result = run(answer())
    if as_json:
        show_json(result)
    else:
        show(result["reply"])
    raise typer.Exit(1 if result["failed"] else 0)


@app.command()
def chat(
    loop: Loop = LoopName.MANUAL,
    session: Session = None,
    mcp_transport: Transport = McpTransport.HTTP,
) -> None:
    """Talk to the agent; leave with quit, exit or bye."""

    async def talk() -> None:
        async with chat_worker(mcp_http=_needs_servers(loop, mcp_transport)) as client:
            from workshop_lib.agents.chat import ChatStart
            from workshop_lib.agents.sessions import ChatClient, MessageRefused

            # Only the SDK's loops can stream; in a session that is rejoined, how it was started counts.
            streams = loop is not LoopName.MANUAL and session is None
            start = ChatStart(stream=streams, mcp_transport=mcp_transport.value)
            talking = ChatClient(client, loop, session, start=start)
            for line in await talking.transcript() if session else []:
                speaker = "You" if line.speaker == "user" else "Agent"
                show(f"{speaker}: {harmless.block(line.text, INDENT)}")
            say(f"Session {talking.session}. Leave with {', '.join(LEAVE)}.")
            while True:
                message = await asyncio.to_thread(read_message)
                if message is None or message.strip().lower() in LEAVE:
                    break
                if not message.strip():
                    continue
                try:
                    show("Agent: ", end="")
                    async for piece in _pieces(client, talking, message, streams=streams):
                        show(harmless.block(piece, INDENT), end="")
                    show("")
                except MessageRefused as refusal:
                    show(str(refusal))
            if session is None:
                await end(talking)
            else:
                say(
                    f"The session stays open: `workshop chat --loop {loop} --session {shlex.quote(session)}`."
                )

    run(talk())


@app.command()
def sessions(as_json: Json = False) -> None:
    """List the chat sessions that the server knows."""

    async def collect() -> list[dict[str, Any]]:
        from workshop_lib.agents.sessions import list_sessions
        from workshop_lib.temporal.connect import connect

        client = await connect()
        async with asyncio.timeout(20):
            return [info.model_dump(mode="json") async for info in list_sessions(client)]

    start_server()
    found = run(collect())
    if as_json:
        show_json(found)
        return
    for info in found:
        name = harmless.line(info["session"])
        show(f"{name:<20} {info['loop']:<8} {info['status']:<10} {info['started']}")
    if not found:
        show("No sessions yet. Start one with `workshop chat --session NAME`.")


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired.")] = False,
    as_json: Json = False,
) -> None:
    """Examine the machine and the lab; each line says how to repair what is wrong."""
    from workshop_lib.lab import doctor as clinic

    findings = run(clinic.examine(fix=fix))
    show(clinic.to_json(findings) if as_json else clinic.render(findings))
    raise typer.Exit(1 if any(finding.status == "FAIL" for finding in findings) else 0)


@app.command()
def progress(as_json: Json = False) -> None:
    """Show which checks have passed."""
    from workshop_lib.lab.jupyter import progress as record

    done = record.read()
    if as_json:
        show_json(
            {n: {c: r.model_dump(mode="json") for c, r in v.items()} for n, v in done.items()}
        )
        return
    for notebook, checks in sorted(done.items()):
        for name, entry in checks.items():
            show(f"{notebook}  {name:<28} {'passed' if entry.passed else 'not yet'}")
    if not done:
        show("No check has been run yet.")


@notebook_app.command()
def reset(number: Annotated[str, typer.Argument(help="Its number, such as 01.")]) -> None:
    """Replace your copy of one notebook by a fresh one; the old one is kept as a backup."""
    from workshop_lib.lab.jupyter.notebooks import reset_notebook
    from workshop_lib.settings import get_settings

    backup = reset_notebook(number, get_settings().workspace)
    say(f"Notebook {number} is fresh." + (f" Your copy is kept as {backup}." if backup else ""))


@app.command("clean")
def clean_state(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Stop everything and delete the state folder: histories, logs, progress. Other files stay."""
    from workshop_lib.lab.services.cleaning import clean
    from workshop_lib.settings import get_settings

    folder = get_settings().state_dir
    if not folder.is_dir() or not any(folder.iterdir()):
        say(f"There is nothing to delete in {folder}.")
        return
    if not yes and not typer.confirm(f"Delete {folder}?"):
        raise typer.Exit(1)
    if stayed := clean(folder):
        more = [f"and {len(stayed) - 10} more"] if len(stayed) > 10 else []
        say("\n".join([f"{folder} is not gone. What stayed:", *stayed[:10], *more]))
        raise typer.Exit(1)
    say(f"{folder} is {'empty' if folder.exists() else 'gone'}.")


@asynccontextmanager
async def chat_worker(*, mcp_http: bool = False) -> AsyncIterator["Client"]:
    """A server, and workers in this process that serve the chats and the teams while the block runs.

    Args:
        mcp_http: also see to it that the teams' MCP servers answer over HTTP.
    """

    def specs() -> "list[WorkerSpec]":
        from workshop_lib.agents.worker import orchestrator
        from workshop_lib.teams.finance.worker import finance
        from workshop_lib.teams.it.worker import it

        return [it(), finance(), orchestrator()]

    async with AsyncExitStack() as running:
        names = ("it", "finance", "orchestrator")
        client = await running.enter_async_context(serving(names, specs))
        if mcp_http:
            from workshop_lib.lab.services.mcp_servers import ensured

            await running.enter_async_context(ensured())
        yield client


async def _pieces(
    client: "Client", chat: "ChatClient", message: str, *, streams: bool
) -> AsyncIterator[str]:
    """The reply to a message, in pieces where the session streams, and what is to be said of the session."""
    if streams:
        from workshop_lib.agents.streaming import stream_reply

        async for piece in stream_reply(client, chat, message):
            if isinstance(piece, str):
                yield piece
            else:
                reply = piece  # the last item
    else:
        reply = await chat.send(message)
        yield reply.text
    if reply.notice:
        yield f"\n({reply.notice})"


def _needs_servers(loop: LoopName, transport: McpTransport) -> bool:
    """Whether somebody has to serve MCP over HTTP; over stdio the worker starts its servers itself."""
    return loop is LoopName.MCP and transport is McpTransport.HTTP


async def end(chat: "ChatClient") -> None:
    """End a session and see it to its end, while there is a worker to do it."""
    await chat.end()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await chat.handle.result()


def read_message() -> str | None:
    """A line from the terminal, or None at its end."""
    try:
        return input("You: ")
    except EOFError:
        return None
