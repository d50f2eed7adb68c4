"""Checks of notebook 03: operations of another team, what a kill does to them, and a lost endpoint."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from temporalio.client import Client, WorkflowHandle

from workshop_lib.agents.chat import Reply
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.lab.checks.evidence import evidence
from workshop_lib.lab.checks.framework import NotYet, check
from workshop_lib.lab.namespaces import find_endpoint, target_of
from workshop_lib.lab.other_side import LinkedRun, linked_runs
from workshop_lib.lab.waiting import watch
from workshop_lib.lab.workers import start_worker
from workshop_lib.settings import get_settings
from workshop_lib.teams.finance.worker import finance

PRICE = "FinanceService.stock_price"
# What a synchronous handler and a workflow-backed one give, in this order.
TABLE = {
    "the caller's history holds the result": (True, True),
    "the team has a history of its own": (False, True),
    "a killed worker costs one step at most": (False, True),
    "may take longer than ten seconds": (False, True),
}


@check(
    expects="a price from a run whose id is the same whenever the same request comes again.",
    hint="the request's id, `ctx.request_id`, is what two tries of one request share.",
    timeout=40,
)
async def handler(client: Client, service_handler: type) -> str:
    """The team's run can be found again by a request that is sent twice."""
    await start_worker(replace(finance(), nexus_handlers=[service_handler]), announce=False)
    chat = ChatClient(client)
    sending = chat.send("What's the stock price of TSLA?")
    await watch(sending, chat.handle, timeout=30)
    [*_, run] = await _price_runs(chat.handle)
    await chat.end()
    if run.request_id not in run.workflow_id:
        raise NotYet(saw=f"a run with the id {run.workflow_id}, which a second try cannot know")
    return f"{run.workflow_id} holds the request's id"


@check(
    expects="a finance worker that died in mid-operation, one run of the team's, and the price.",
    hint="start the process with a kill point in the team's activity, then send, then await its end.",
    timeout=60,
)
async def survived_team(handle: WorkflowHandle[Any, Any], asking: "asyncio.Task[Reply]") -> str:
    """The team's history shows the lost step; the caller's shows one operation and one result."""
    reply = await watch(asyncio.shield(asking), handle, timeout=50, expect_no_worker=True)
    [*_, run] = await _price_runs(handle)
    client = handle._client
    config = client.config() | {"namespace": run.namespace}
    theirs = Client(**config).get_workflow_handle(run.workflow_id, run_id=run.run_id)
    lost = (await evidence(theirs)).lost
    if not lost:
        raise NotYet(saw="a run of the team's in which no step was lost with its worker")
    if "185.5" not in reply.text:
        raise NotYet(saw=f"the reply {reply.text!r}")
    return f"lost with its worker and done again: {lost[0].name}; one run: {run.workflow_id}"


@check(
    expects="True or False twice for each of the four claims: synchronous, workflow-backed.",
    hint="look again at what the two kills and the twelve seconds have shown.",
    timeout=10,
)
async def durable_table(claims: Mapping[str, tuple[bool, bool]]) -> str:
    """The learner's table says what the experiments have shown."""
    if unknown := set(claims) ^ set(TABLE):
        raise NotYet(saw=f"the claims {', '.join(sorted(unknown))}")
    for claim, truth in TABLE.items():
        said = claims[claim]
        if not isinstance(said, tuple) or len(said) != 2 or None in said:
            raise NotYet(saw=f"{said!r} for {claim!r}")
        for kind, one, other in zip(("synchronous", "workflow-backed"), said, truth, strict=True):
            if one is not other:
                raise NotYet(saw=f"{one} for {claim!r} of a {kind} operation")
    return "as the experiments have shown"


@check(
    expects="the endpoint back where the team polls, and the reply that has waited for it.",
    hint="`lab.describe_endpoint` says where it leads; `settings` and the team's banner where it should.",
    timeout=60,
)
async def case_closed(
    client: Client, handle: WorkflowHandle[Any, Any], asking: "asyncio.Task[Reply]"
) -> str:
    """The waiting conversation has gone on, without being asked again."""
    settings = get_settings()
    found = await find_endpoint(client, settings.finance_endpoint)
    wanted = f"{settings.finance_namespace}/{settings.finance_queue}"
    if found is None or target_of(found.spec) != wanted:
        raise NotYet(saw=f"{settings.finance_endpoint} → {found and target_of(found.spec)}")
    reply = await watch(asyncio.shield(asking), handle, timeout=50)
    if "185.5" not in reply.text:
        raise NotYet(saw=f"the reply {reply.text!r}")
    return f"{settings.finance_endpoint} → {wanted}, and the reply is here"


async def _price_runs(handle: WorkflowHandle[Any, Any]) -> list[LinkedRun]:
    """The finance team's runs that this run has started.

    Raises:
        NotYet: there are none.
    """
    runs = [run for run in await linked_runs(handle) if run.operation == PRICE]
    if not runs:
        raise NotYet(
            saw="no run in the finance team's namespace that this conversation has started",
            hint="is the team's worker running, and did the question name a ticker?",
        )
    return runs
