"""Checks of notebook 03: operations of another team, what a kill does to them, and a lost endpoint."""

import asyncio
import uuid
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.agents.chat import Reply
from workshop_lib.lab.checks.framework import NotYet, check
from workshop_lib.lab.checks.trial import running
from workshop_lib.lab.classroom import seconds
from workshop_lib.lab.history import LinkedRun, history_of
from workshop_lib.lab.lessons.check_runs import AskPrice
from workshop_lib.lab.other_side import handle_of, linked_runs
from workshop_lib.lab.server.namespaces import target_of, wanted_endpoints
from workshop_lib.lab.watching.listening import first_handler_failure
from workshop_lib.lab.watching.waiting import result, watch
from workshop_lib.lab.workers.threads import start_worker
from workshop_lib.settings import get_settings
from workshop_lib.teams.finance.worker import finance
from workshop_lib.temporal.lookup import find_endpoint

PRICE = "FinanceService.stock_price"
# What a synchronous handler and a workflow-backed one give, in this order.
TABLE = {
    "the caller's history holds the result": (True, True),
    "the team has a history of its own": (False, True),
    "a recorded step is not done again after a kill": (False, True),
    "may take longer than ten seconds": (False, True),
}

# Where a learner finds out about each.
LOOK = {
    "the caller's history holds the result": "read the events of `quick`, and of the chat.",
    "the team has a history of its own": "compare the linked runs of the chat with those of `quick`.",
    "a recorded step is not done again after a kill": "which side has a history that steps can be recorded "
    "in? You have killed a worker of each kind between two steps.",
    "may take longer than ten seconds": "look at the twelve seconds; and a workflow may take a week.",
}


@check(
    expects="one run for each request, however often it is sent, and another run for another request.",
    hint="the request's id, `ctx.request_id`, is what two starts of one request share, and only they.",
    timeout=60,
)
async def handler(client: Client, service_handler: type) -> str:
    """A request that is sent twice finds the run again, and finds no run of another request."""
    one, another = (str(uuid.uuid4()) for _ in range(2))
    first = await _run_for(client, service_handler, one)
    again = await _run_for(client, service_handler, one)
    other = await _run_for(client, service_handler, another)
    name = first.workflow_id
    if again.workflow_id != name:
        raise NotYet(
            saw=f"two runs for one request that was sent twice: {name}, {again.workflow_id}"
        )
    if again.run_id != first.run_id:
        raise NotYet(
            saw=f"two runs, both called {name}, for one request that was sent twice",
            hint="`return await ctx.start_workflow(…)` with that id and no policies finds the first run.",
        )
    if other.workflow_id == name:
        raise NotYet(saw=f"the id {name}, which another request for the same has, too")
    if str(abs(hash(one))) in name:
        raise NotYet(
            saw="an id made with `hash`, which is another one in each process",
            hint="take the request's id itself, or `uuid.uuid5` or `hashlib`.",
        )
    return f"the second start of a request found {name}; another request has {other.workflow_id}"


async def _run_for(client: Client, service_handler: type, request_id: str) -> LinkedRun:
    """Send a request under this id to a fresh handler. Returns the run that it has started or found.

    Raises:
        NotYet: the handler has failed, or has started none.
    """
    # Fresh: what a handler remembers by itself is gone after a restart, when a start is sent again.
    await start_worker(replace(finance(), nexus_handlers=[service_handler]), announce=False)
    # A call that fails would be tried again, and again fail, beside the next attempt: its run ends here.
    async with running(client, AskPrice, (get_settings().finance_endpoint, request_id)) as handle:
        await _unless_it_fails(result(handle, timeout=15))
    (run,) = await linked_runs(handle) or (None,)
    if run is None:
        raise NotYet(
            saw="an operation that has started no run in the team's namespace",
            hint="a handler of this kind returns what `await ctx.start_workflow(…)` returns.",
        )
    # While the team's run goes on, its id is refused to others, whoever they are.
    await result(handle_of(client, run), timeout=10)
    return run


async def _unless_it_fails(answer: Awaitable[Any]) -> None:
    """Await an answer; a handler that raises would be asked again until the call's time is over.

    Raises:
        NotYet: a handler of this kernel has failed.
    """
    with first_handler_failure() as failing:
        asking = asyncio.ensure_future(answer)
        try:
            both: set[asyncio.Future[Any]] = {asking, failing}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                raise NotYet(saw=failing.result(), hint="mend that line, and run both cells again.")
            await asking
        finally:
            asking.cancel()


@check(
    expects="a finance worker that died in mid-operation, one run of the team's, and the price.",
    hint="start the process with a kill point in the team's activity, then send, then await its end.",
    timeout=60,
)
async def survived_team(handle: WorkflowHandle[Any, Any], asking: "asyncio.Task[Reply]") -> str:
    """The team's history shows the lost step; the caller's shows one operation and one result."""
    try:
        await handle.describe(rpc_timeout=seconds(10))
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        raise NotYet(
            saw="a conversation that nobody has begun",
            hint="the cell above has stopped before it asked. Mend it, and run it again.",
        ) from None
    reply = await watch(asyncio.shield(asking), handle, timeout=50)
    runs = [run for run in await linked_runs(handle) if run.operation == PRICE]
    if not runs:
        raise NotYet(
            saw="no run in the finance team's namespace that this conversation has started",
            hint="is the team's worker running, and did the question name a ticker?",
        )
    run = runs[-1]
    lost = (await history_of(handle_of(handle._client, run))).lost
    if not lost:
        raise NotYet(
            saw="a run of the team's in which no step was lost with its worker",
            hint="the kill point has to be in the team's activity, and the second process comes after the "
            "first one's end. If both are so, a question asked before took the kill: run the cell again.",
        )
    if "185.5" not in reply.text:
        raise NotYet(saw=f"the reply {reply.text!r}")
    return f"lost with its worker and done again: {lost[0].name}; one run: {run.workflow_id}"


@check(
    expects="True or False twice for each of the four claims: synchronous, workflow-backed.",
    hint="each claim has an experiment above.",
    timeout=10,
)
async def durable_table(claims: Mapping[str, tuple[bool, bool]]) -> str:
    """The learner's table says what the experiments have shown."""
    if not isinstance(claims, Mapping):
        raise NotYet(saw=f"{claims!r}")
    if unknown := set(claims) ^ set(TABLE):
        raise NotYet(saw=f"the claims {', '.join(sorted(unknown))}")
    for claim, truth in TABLE.items():
        claimed = claims[claim]
        if not isinstance(claimed, (tuple, list)) or len(claimed) != 2 or None in claimed:
            raise NotYet(saw=f"{claimed!r} for {claim!r}")
        for kind, one, other in zip(
            ("synchronous", "workflow-backed"), claimed, truth, strict=True
        ):
            if one is not other:
                raise NotYet(saw=f"{one} for {claim!r} of a {kind} operation", hint=LOOK[claim])
    return "as the experiments have shown"


@check(
    expects="the endpoint back where the team polls, and the reply that has waited for it.",
    hint="`lab.describe_endpoint` says where it leads, and the team's banner where it should.",
    timeout=60,
)
async def case_closed(
    client: Client, handle: WorkflowHandle[Any, Any], asking: "asyncio.Task[Reply]"
) -> str:
    """The waiting conversation has gone on, without being asked again."""
    finance, wrong = get_settings().finance_endpoint, {}
    for spec in wanted_endpoints():
        endpoint = await find_endpoint(client, spec.name)
        leads = target_of(endpoint.spec) if endpoint else "nowhere"
        if leads != target_of(spec):
            wrong[spec.name] = f"{spec.name} → {leads}"
    if finance in wrong:
        raise NotYet(saw=wrong[finance])
    if wrong:
        raise NotYet(
            saw="; ".join(wrong.values()),
            hint="that one was right before. Point it back, or `await lab.start()`.",
        )
    print(f"{finance} is right. The reply comes with the server's next try.")
    # What was wrong until a moment ago is still written at the call: nobody needs to read it again.
    reply = await watch(asyncio.shield(asking), handle, timeout=50, quiet=True)
    if "did not answer" in reply.text:
        raise NotYet(
            saw="a question that has given up before the endpoint was right",
            hint="it is right now. Ask again, `asking = asyncio.create_task(chat.send(...))`, and check.",
        )
    if "185.5" not in reply.text:
        raise NotYet(saw=f"the reply {reply.text!r}")
    return f"{finance} leads to the team, and the reply is here"
