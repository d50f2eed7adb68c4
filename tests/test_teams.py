"""The teams behind Nexus, called from both loops: answers, what the histories show, and what may go wrong.

Every test has endpoints and queues of its own on the real server. What a worker that is killed changes is
in the second half: nothing.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from lab_environment import LIMIT
from teams_environment import TeamCall, Teams, calls_of, events
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from workshop_lib.agents.chat import ChatStart, Reply
from workshop_lib.agents.sessions import LOOPS, ChatClient, MessageRefused
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import history_of
from workshop_lib.lab.timeline.page import timeline
from workshop_lib.lab.timeline.run import NEXUS, TEAM
from workshop_lib.lab.workers.kill_points import KillPoint, Where
from workshop_lib.lab.workers.process import start_process
from workshop_lib.teams.finance.activities import compute_roi, look_up_price
from workshop_lib.teams.finance.contract import StockPrice, StockPriceInput
from workshop_lib.teams.finance.worker import finance
from workshop_lib.temporal.worker import WorkerSpec

TSLA = "What's the stock price of TSLA?"
TSLA_REPLY = "Stock price for TSLA: company Tesla, price 242.80 USD."
BOTH_TEAMS = "What is my IP address and the stock price of NVDA?"
IP_REPLY = "IP: 172.16.0.1."
NVDA_REPLY = "Stock price for NVDA: company Nvidia, price 875.60 USD."
SCHEDULED = EventType.EVENT_TYPE_NEXUS_OPERATION_SCHEDULED
OUT_OF_PATIENCE = 5  # seconds: time for a team that is there, on a busy machine too


NEXUS_LOOPS = [loop for loop in LOOPS if loop != "mcp"]  # that one has another door to the teams


@pytest.fixture(params=NEXUS_LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Each loop in turn: a team is the same to all of them."""
    return str(request.param)


@pytest.fixture
def chat(client: Client, worker: WorkerSpec, loop: str, unserved_teams: Teams) -> ChatClient:
    """A new session that knows the teams of this test."""
    return ChatClient(client, loop, task_queue=worker.task_queue)


@pytest.fixture
def impatient(client: Client, worker: WorkerSpec, loop: str, unserved_teams: Teams) -> ChatClient:
    """The same, which waits for a team for some seconds only."""
    start = ChatStart(team_timeout=OUT_OF_PATIENCE)
    return ChatClient(client, loop, task_queue=worker.task_queue, start=start)


async def say(chat: ChatClient, message: str) -> Reply:
    return await chat.send(message, timeout=timedelta(seconds=LIMIT))


def of_type(history: list[HistoryEvent], kind: "EventType.ValueType") -> list[HistoryEvent]:
    return [event for event in history if event.event_type == kind]


async def until_scheduled(chat: ChatClient) -> None:
    """Wait until a call to a team is in the session's history."""
    async with asyncio.timeout(LIMIT):
        while not (await begun(chat) and of_type(await events(chat.handle), SCHEDULED)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # an event of the server's


async def begun(chat: ChatClient) -> bool:
    return bool(await chat.transcript())


# --- answers -----------------------------------------------------------------------------------------


async def test_questions_to_both_teams_are_answered_and_each_call_is_linked_both_ways(
    chat: ChatClient, teams: Teams
) -> None:
    conversation: list[tuple[str, str, list[str]]] = [
        ("What is 125 * 8?", "125 * 8 = 1000.", ["calculator"]),
        (
            "What's the weather like in San Francisco?",
            "The weather in San Francisco: 15 °C, foggy, wind 22 km/h.",
            ["weather"],
        ),
        ("What is my IP address?", IP_REPLY, ["get_ip"]),
        (
            "Get JIRA metrics for project DEMO-456",
            "Jira metrics for DEMO-456: open 23, closed 45, total 68.",
            ["jira_metrics"],
        ),
        (TSLA, TSLA_REPLY, ["stock_price"]),
        # "And": what is asked for stands in the turn before.
        (
            "And AAPL?",
            "Stock price for AAPL: company Apple, price 185.50 USD.",
            ["stock_price"],
        ),
        (
            "Calculate ROI for $10,000 at 5% over 10 years",
            "future value 16288.95, gain 6288.95, ROI 62.89 %.",
            ["calculate_roi"],
        ),
        ("And over 20 years?", "future value 26532.98", ["calculate_roi"]),
        (BOTH_TEAMS, f"{IP_REPLY} {NVDA_REPLY}", ["get_ip", "stock_price"]),
        (
            "Get JIRA metrics for WEB-101 and calculate ROI for $500 at 3% over 2 years",
            "total 119. ROI (principal 500",
            ["jira_metrics", "calculate_roi"],
        ),
    ]
    asked: list[str] = []
    for number, (question, answer, tools) in enumerate(conversation, 1):
        reply = await say(chat, question)
        assert answer in reply.text
        assert (reply.turn, reply.tool_calls, reply.model_calls) == (number, tools, 2)
        asked += [tool for tool in tools if tool not in ("calculator", "weather")]
    assert "125 * 8" in (await say(chat, "What did I ask first?")).text

    calls = await calls_of(chat.handle)
    assert sorted(call.operation for call in calls) == sorted(asked)
    # Where each team is was asked once in the session.
    assert len((await history_of(chat.handle)).named("discover_teams")) == 1
    for call in calls:
        await is_linked_both_ways(call, chat, teams)
    for team in (teams.it, teams.finance):
        linked = {call.run for call in calls if call.namespace == team.namespace}
        runs = await teams.runs_of(team, len(linked))
        assert len(runs) == len(linked) and set(runs) == linked

    await chat.end()
    with pytest.raises(MessageRefused, match="ended"):
        await say(chat, TSLA)


async def is_linked_both_ways(call: TeamCall, chat: ChatClient, teams: Teams) -> None:
    """The call leads to a run of its team, whose first event leads back to the call."""
    is_it = call.operation in ("get_ip", "jira_metrics")
    team, endpoint = (
        (teams.it, teams.it_endpoint) if is_it else (teams.finance, teams.finance_endpoint)
    )
    assert (call.namespace, call.endpoint) == (team.namespace, endpoint)
    assert call.run.workflow_id.startswith(call.operation.replace("_", "-"))
    assert call.run.workflow_id.endswith(call.request_id)
    there = await teams.history_of(call)
    first = there[0].workflow_execution_started_event_attributes
    assert first.original_execution_run_id == call.run.run_id
    assert there[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
    [callback] = first.completion_callbacks
    [link] = callback.links
    back = link.workflow_event
    assert (back.workflow_id, back.event_ref.event_id) == (chat.workflow_id, call.scheduled)
    assert back.event_ref.event_type == SCHEDULED


async def test_messages_sent_at_once_get_their_own_teams_answers(
    chat: ChatClient, teams: Teams
) -> None:
    tickers = {"AAPL": "185.50", "TSLA": "242.80", "IBM": "168.40", "META": "484.20"}
    replies = await asyncio.gather(*(say(chat, f"What's the stock price of {t}?") for t in tickers))
    for (ticker, price), reply in zip(tickers.items(), replies, strict=True):
        assert ticker in reply.text and price in reply.text
        assert sum(other in reply.text for other in tickers) == 1
    assert len(await calls_of(chat.handle)) == len(tickers)


# --- what the team refuses ---------------------------------------------------------------------------


async def test_what_a_team_does_not_know_or_tell_is_refused_once_and_said(
    chat: ChatClient, teams: Teams
) -> None:
    unknown = await say(chat, "What's the stock price of ZZZZ?")
    assert "unknown ticker 'ZZZZ'; known are AAPL, AMD" in unknown.text
    nowhere = await say(chat, "Get JIRA metrics for project NOPE-9")
    assert "unknown project 'NOPE-9'; known are DEMO-456" in nowhere.text
    assert "HR-1" not in nowhere.text
    secret = await say(chat, "Get JIRA metrics for project HR-1")
    assert "project HR-1 is confidential" in secret.text

    calls = await calls_of(chat.handle)
    assert len(calls) == 3
    for call, kind in zip(calls, ("UnknownTicker", "UnknownProject", "Forbidden"), strict=True):
        there = await teams.history_of(call)
        [failed] = of_type(there, EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED)
        failure = failed.activity_task_failed_event_attributes.failure
        assert failure.application_failure_info.type == kind
        [started] = of_type(there, EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED)
        assert started.activity_task_started_event_attributes.attempt == 1
    assert len(await teams.runs_of(teams.it, 2)) == 2
    assert (await say(chat, TSLA)).text == TSLA_REPLY


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Calculate ROI for $10,000 at 5000% over 10 years", "less than or equal to 1000"),
        ("Calculate ROI for $10,000 at 5% over 0 years", "greater than 0"),
    ],
)
async def test_arguments_that_break_the_contract_are_refused_before_a_call(
    chat: ChatClient, teams: Teams, question: str, reason: str
) -> None:
    assert reason in (await say(chat, question)).text
    assert not of_type(await events(chat.handle), SCHEDULED)
    # The team has heard of nothing but the question after that.
    await say(chat, TSLA)
    [run] = await teams.runs_of(teams.finance)
    assert run.workflow_id.startswith("stock-price-TSLA")


@pytest.mark.parametrize("asked", ["TSLA", "tsla", " Tesla "])
async def test_a_price_is_found_by_ticker_and_by_name(asked: str) -> None:
    found = await ActivityEnvironment().run(look_up_price, StockPriceInput(ticker=asked))
    assert (found.ticker, found.company, found.price) == ("TSLA", "Tesla", 242.8)


@activity.defn(name="look_up_price")
async def down_twice(request: StockPriceInput) -> StockPrice:
    """The finance team's activity on a bad day."""
    if activity.info().attempt <= 2:
        raise ApplicationError("the records cannot be read now", type="ServiceDown")
    return StockPrice(ticker=request.ticker, company="Tesla", price=242.8, currency="USD")


async def test_a_service_that_is_down_is_tried_again_on_the_teams_side(
    chat: ChatClient, unserved_teams: Teams
) -> None:
    bad_day = replace(unserved_teams.finance, activities=[down_twice, compute_roi])
    async with unserved_teams.serving(bad_day):
        assert (await say(chat, TSLA)).text == TSLA_REPLY
    [call] = await calls_of(chat.handle)
    [started] = of_type(
        await unserved_teams.history_of(call), EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
    )
    assert started.activity_task_started_event_attributes.attempt == 3
    assert len(of_type(await events(chat.handle), SCHEDULED)) == 1


# --- a team that is not there ------------------------------------------------------------------------


async def test_the_reply_comes_when_the_team_is_back(
    chat: ChatClient, unserved_teams: Teams
) -> None:
    sending = asyncio.create_task(say(chat, TSLA))
    await until_scheduled(chat)
    assert not await calls_of(chat.handle)  # nobody has taken it
    async with unserved_teams.serving(unserved_teams.finance):
        async with asyncio.timeout(LIMIT):
            assert (await sending).text == TSLA_REPLY
    assert len(await unserved_teams.runs_of(unserved_teams.finance)) == 1


async def test_an_outage_is_said_with_its_place_and_the_other_teams_answer_stays(
    impatient: ChatClient, unserved_teams: Teams
) -> None:
    teams = unserved_teams
    async with teams.serving(teams.it):
        reply = await say(impatient, BOTH_TEAMS)
        assert IP_REPLY in reply.text and "875" not in reply.text
        assert f"the finance team did not answer within {OUT_OF_PATIENCE} s" in reply.text
        place = (teams.finance_endpoint, teams.finance.namespace, teams.finance.task_queue)
        assert all(name in reply.text for name in place)
        assert teams.it_endpoint not in reply.text
        async with teams.serving(teams.finance):
            assert (await say(impatient, BOTH_TEAMS)).text == f"{IP_REPLY} {NVDA_REPLY}"


@pytest.mark.parametrize("loop", ["manual"])  # what is mended is the server's: one loop will do
async def test_an_endpoint_that_leads_to_a_queue_nobody_polls_is_mended_while_the_chat_waits(
    chat: ChatClient, teams: Teams
) -> None:
    await teams.make_endpoint(teams.finance, queue="nobody-polls")
    sending = asyncio.create_task(say(chat, TSLA))
    await until_scheduled(chat)
    assert not sending.done()
    await teams.make_endpoint(teams.finance)
    async with asyncio.timeout(LIMIT):
        assert (await sending).text == TSLA_REPLY


async def test_an_outage_is_said_with_the_queue_that_the_endpoint_leads_to_now(
    impatient: ChatClient, teams: Teams
) -> None:
    assert (await say(impatient, TSLA)).text == TSLA_REPLY
    await teams.make_endpoint(teams.finance, queue="nobody-polls")
    reply = await say(impatient, TSLA)
    assert "did not answer" in reply.text and "task queue nobody-polls" in reply.text
    assert teams.finance.task_queue not in reply.text


async def test_a_call_that_reaches_the_wrong_team_is_said_with_its_place(
    chat: ChatClient, teams: Teams
) -> None:
    misled = replace(teams.finance, namespace=teams.it.namespace, task_queue=teams.it.task_queue)
    await teams.point(teams.finance_endpoint, misled)
    reply = await say(chat, BOTH_TEAMS)
    assert IP_REPLY in reply.text
    assert "the finance team did not take the call: No handler for service" in reply.text
    place = (teams.finance_endpoint, teams.it.namespace, teams.it.task_queue)
    assert all(name in reply.text for name in place)


async def test_an_endpoint_that_is_missing_is_said_and_works_once_it_is_made(
    chat: ChatClient, teams: Teams
) -> None:
    await teams.delete_endpoint(teams.finance)
    reply = await say(chat, BOTH_TEAMS)
    assert IP_REPLY in reply.text
    assert f"the server has no endpoint {teams.finance_endpoint}" in reply.text
    await teams.make_endpoint(teams.finance)
    assert (await say(chat, BOTH_TEAMS)).text == f"{IP_REPLY} {NVDA_REPLY}"


async def test_an_endpoint_that_is_taken_away_while_the_chat_waits_is_said(
    impatient: ChatClient, unserved_teams: Teams
) -> None:
    teams = unserved_teams
    sending = asyncio.create_task(say(impatient, TSLA))
    await until_scheduled(impatient)
    await teams.delete_endpoint(teams.finance)
    async with asyncio.timeout(LIMIT):
        reply = await sending
    assert teams.finance_endpoint in reply.text and "did not" in reply.text
    # From here on the session knows that there is none.
    again = await say(impatient, TSLA)
    assert f"the server has no endpoint {teams.finance_endpoint}" in again.text


@pytest.mark.parametrize("loop", ["manual"])  # the server's business, as above
async def test_a_turn_that_meets_a_missing_endpoint_goes_on_once_it_is_made(
    chat: ChatClient, teams: Teams
) -> None:
    assert (await say(chat, TSLA)).text == TSLA_REPLY  # the session has seen the endpoint
    await teams.delete_endpoint(teams.finance)
    # The server does not take the call, and asks the workflow again and again. The client gives up in time.
    async with asyncio.timeout(10) as limit:
        with pytest.raises(WorkshopError, match="No reply within 2 s"):
            await chat.send(TSLA, timeout=timedelta(seconds=2))
    assert not limit.expired()
    failed = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    answered = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED
    async with asyncio.timeout(LIMIT):
        while not of_type(await events(chat.handle), failed):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await teams.make_endpoint(teams.finance)
    async with asyncio.timeout(LIMIT):
        while len(of_type(await events(chat.handle), answered)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # an event of the server's
    texts = [line.text for line in await chat.transcript()]
    assert texts == [TSLA, TSLA_REPLY] * 2


# --- the finance worker is killed --------------------------------------------------------------------


async def test_a_kill_point_in_an_operation_that_the_worker_lacks_is_refused() -> None:
    with pytest.raises(WorkshopError, match="would kill nobody") as refused:
        await start_process(finance(), kill_at=KillPoint(Where.OPERATION_BEFORE, "get_ip"))
    assert "stock_price" in str(refused.value)


async def test_an_operation_in_the_timeline_runs_from_its_scheduling_to_its_end(
    chat: ChatClient, teams: Teams
) -> None:
    """One clock: it may not seem to be over before the workflow that it waits for."""
    await chat.send(TSLA)
    bars = (await timeline(chat.handle)).run.bars
    [operation] = [bar for bar in bars if bar.lane == NEXUS]
    [workflow] = [bar for bar in bars if bar.lane == TEAM and "in " in bar.detail]
    assert operation.started == operation.scheduled <= workflow.scheduled
    assert operation.ended and workflow.ended and operation.ended >= workflow.ended
    length = (
        operation.ended - operation.started
    )  # what is printed, beside the time of its scheduling
    assert operation.scheduled + length >= workflow.ended
