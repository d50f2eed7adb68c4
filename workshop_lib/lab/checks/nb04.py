"""Checks of notebook 04: a tool that appears, a server that dies in mid-call, and what to choose."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from temporalio.client import Client

from workshop_lib.agents.chat import Reply
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.lab.checks.framework import NotYet, check
from workshop_lib.lab.history import history_of
from workshop_lib.lab.other_side import mcp_runs
from workshop_lib.lab.services.mcp_servers import is_healthy
from workshop_lib.lab.watching.waiting import watch
from workshop_lib.mcp.addresses import SERVER_DOWN
from workshop_lib.settings import get_settings

CALL = "temporalio.mcp.finance-http.call-tool"
LISTING = "temporalio.mcp.finance-http.list-tools"
SIGNAL = "tools_changed"
CHOICES = {
    "two teams of one company, both on Temporal": "nexus",
    "a desktop assistant that somebody else wrote": "mcp",
    "a call that may take a week": "nexus",
    "tools that change while the agent runs": "mcp",
}


@check(
    expects="a completed call of a tool that the finance team never had.",
    hint="decorate the function with `@mine.tool`, serve it, and signal `tools_changed` to the session.",
    timeout=30,
)
async def new_tool(chat: ChatClient) -> str:
    """The agent has called the learner's tool, in a session that was open before there was one."""
    history = await history_of(chat.handle)
    listings = [run.result for run in history.named(LISTING) if run.completed]
    listed = [{str(tool.get("name")) for tool in _tools(result)} for result in listings]
    new = sorted(listed[-1] - listed[0]) if listed else []
    if SIGNAL not in history.signals:
        raise NotYet(saw=_signals(history.signals), hint=f"`await chat.handle.signal({SIGNAL!r})`.")
    if not new:
        raise NotYet(
            saw="no new tool in the list that the server gave after the signal",
            hint="`@mine.tool` above the function, then serve it, then signal, then ask.",
        )
    for tool in (t for t in _tools(listings[-1]) if t.get("name") in new):
        _see_it_is_described(tool)
    calls = [run for run in history.named(CALL) if _name(run.input) in new]
    if not calls:
        raise NotYet(
            saw=f"{', '.join(new)} in the list, and no call of it",
            hint="the model chooses by name and docstring: do they speak of exchange rates?",
        )
    name, result = _name(calls[-1].input), calls[-1].result or {}
    if not calls[-1].completed:
        raise NotYet(
            saw=f"{name} was called and has given no result that its signature allows",
            hint="try the function by itself: does it return what it says?",
        )
    if result.get("is_error"):
        words = " ".join(str(part.get("text", "")) for part in result.get("content") or ())
        raise NotYet(
            saw=f"{name} was called and failed: {words}", hint="try the function by itself."
        )
    return f"called: {name}, in a session that began without it"


@check(
    expects="the price, although the server died in mid-call, and one run of the team's.",
    hint="ask in the background, kill the server while the call waits, then start server and worker again.",
    timeout=60,
)
async def killed_server(
    client: Client, chat: ChatClient, asking: "asyncio.Task[Reply]", ticker: str
) -> str:
    """The call was tried again, and found the run that the first try had started."""
    if not asking.done() and not await asyncio.to_thread(is_healthy, "finance"):
        raise NotYet(saw="no finance server", hint="`await finance_server.restart()`.")
    reply = await watch(asyncio.shield(asking), chat.handle, timeout=50)
    calls = (await history_of(chat.handle)).named(CALL)
    if not calls:
        raise NotYet(
            saw=f"no call of the finance server, and the reply {reply.text!r}",
            hint="kill it after `lab.mcp_runs`: before, the agent has not asked it.",
        )
    last = calls[-1]
    if last.attempts < 2:
        raise NotYet(
            saw="a call that was tried once: nothing happened to it",
            hint="kill `finance_server` while the call waits, after `lab.mcp_runs`.",
        )
    # Whatever the first try has reported, it was the server. Only one that has reported nothing may have been
    # a worker on a busy machine that has missed a heartbeat.
    if last.lost and last.failed_with != SERVER_DOWN:
        raise NotYet(saw="a second try, but not because of the server")
    runs = await mcp_runs(chat.handle, get_settings().finance_namespace)
    if len(runs) != 1:
        raise NotYet(saw=f"{len(runs)} runs of the team's for this call")
    if ticker not in reply.text:
        raise NotYet(saw=f"the reply {reply.text!r}")
    return f"{last.attempts} tries, one run: {runs[0]}"


@check(
    expects='"nexus" or "mcp" for each of the four situations.',
    hint="who calls, how long it takes, and who must change nothing when a tool is added.",
    timeout=5,
)
async def chosen(choices: Mapping[str, str]) -> str:
    """The chooser, applied."""
    if not isinstance(choices, Mapping):
        raise NotYet(saw=f"{choices!r}")
    for situation, right in CHOICES.items():
        choice = str(choices.get(situation)).strip().lower()
        if choice != right:
            raise NotYet(saw=f"{choices.get(situation)!r} for {situation!r}")
    return "as the table says"


def _signals(names: Sequence[str]) -> str:
    if not names:
        return "no signal in the session's history"
    return f"the signal {names[-1]!r}; the session listens to {SIGNAL!r}"


def _tools(listing: Any) -> list[dict[str, Any]]:
    """The tools in the result of a listing."""
    return [*(listing or {}).get("tools", ())]


def _see_it_is_described(tool: dict[str, Any]) -> None:
    """See that a model can know when to call a tool, and with what."""
    name = tool["name"]
    if not str(tool.get("description") or "").strip():
        raise NotYet(
            saw=f"{name} without a docstring",
            hint="the docstring is what a model reads: one sentence on what the tool is for.",
        )
    arguments = [*(tool.get("input_schema") or {}).get("properties", ())]
    if arguments != ["currency"]:
        raise NotYet(
            saw=f"{name}({', '.join(arguments)})", hint="its one argument is `currency: str`."
        )


def _name(request: object) -> str | None:
    """The tool's name in the input of a call."""
    return str(request.get("name")) if isinstance(request, dict) else None
