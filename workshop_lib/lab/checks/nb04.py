"""Checks of notebook 04: a tool that appears, a server that dies in mid-call, and what to choose."""

import asyncio
from collections.abc import Mapping

from temporalio.client import Client

from workshop_lib.agents.chat import Reply
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.lab.checks.evidence import evidence
from workshop_lib.lab.checks.framework import NotYet, check
from workshop_lib.lab.other_side import mcp_runs
from workshop_lib.lab.waiting import watch
from workshop_lib.mcp_wire import SERVER_DOWN
from workshop_lib.settings import get_settings

CALL = "temporalio.mcp.finance-http.call-tool"
KNOWN = {"stock_price", "calculate_roi"}
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
    calls = [run for run in (await evidence(chat.handle)).named(CALL) if run.completed]
    names = [_name(run.input) for run in calls]
    new = [run for run, name in zip(calls, names, strict=True) if name and name not in KNOWN]
    if not new:
        raise NotYet(
            saw=f"calls of {', '.join(map(str, names)) or 'no tool'} of the finance server"
        )
    name, result = _name(new[-1].input), new[-1].result or {}
    if result.get("is_error"):
        said = " ".join(str(part.get("text", "")) for part in result.get("content") or ())
        raise NotYet(
            saw=f"{name} was called and failed: {said}", hint="try the function by itself."
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
    reply = await watch(asyncio.shield(asking), chat.handle, timeout=50)
    calls = (await evidence(chat.handle)).named(CALL)
    if not calls:
        raise NotYet(saw=f"no call of the finance server, and the reply {reply.text!r}")
    last = calls[-1]
    if last.attempts < 2:
        raise NotYet(saw="a call that was tried once: nothing happened to it")
    if last.failed_with != SERVER_DOWN:  # a worker on a busy machine may have missed a heartbeat
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
    for situation, right in CHOICES.items():
        said = str(choices.get(situation)).strip().lower()
        if said != right:
            raise NotYet(saw=f"{choices.get(situation)!r} for {situation!r}")
    return "as the table says"


def _name(request: object) -> str | None:
    """The tool's name in the input of a call."""
    return str(request.get("name")) if isinstance(request, dict) else None
