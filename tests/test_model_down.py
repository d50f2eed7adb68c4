"""A model, a server of tools or a team that is down: how often it is asked, and what people wait for."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import pytest_asyncio
from fastmcp import FastMCP
from lab_environment import free_port
from nexusrpc import HandlerError, HandlerErrorType
from nexusrpc.handler import StartOperationContext, service_handler, sync_operation
from openai_server import OpenAIServer, scripted_model
from teams_environment import Teams
from temporalio.api.enums.v1 import PendingNexusOperationState
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflow.v1 import PendingNexusOperationInfo
from temporalio.client import Client

from workshop_lib.agents import team_tools
from workshop_lib.agents.chat import MODEL_DOWN, ChatStart, Reply
from workshop_lib.agents.loops import mcp_clients
from workshop_lib.agents.loops.mcp_clients import LISTING_TRIES
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.lab import breakers
from workshop_lib.lab.registry import stop, stop_all
from workshop_lib.lab.services.mcp_in_kernel import serve_mcp
from workshop_lib.lab.watching.pending import _operation, waits_for
from workshop_lib.teams.finance.contract import (
    FinanceService,
    Roi,
    RoiInput,
    StockPrice,
    StockPriceInput,
)
from workshop_lib.temporal.breaker import PAUSE, THRESHOLD, breaker_of
from workshop_lib.temporal.breaker import breakers as all_breakers
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = timedelta(seconds=100)
A_CALL = 10  # tokens, as the scripted model says
SettingsEnv = Callable[..., None]


async def until(happened: Callable[[], bool], within: float = 60) -> None:
    async with asyncio.timeout(within):
        while not happened():  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.02)


async def wait_out(
    client: Client, worker: WorkerSpec, model: OpenAIServer, turns: int, down: float
) -> tuple[list[Reply], int, float]:
    """Turns of all kinds that wait for a model, which is down for so many seconds after its breaker opened.

    Returns:
        Their replies, how many requests have reached it meanwhile, and seconds from its recovery to the first
        answer.
    """
    kinds = [("manual", False), ("sdk", False), ("sdk", True)]

    def ask(number: int) -> "asyncio.Task[Reply]":
        loop, stream = kinds[number % len(kinds)]
        chat = ChatClient(
            client, loop, task_queue=worker.task_queue, start=ChatStart(stream=stream)
        )
        return asyncio.create_task(chat.send("Hello", timeout=LIMIT))

    asked = [ask(0)]
    await until(lambda: any(one.state != "closed" for one in all_breakers()))
    opened, reached = time.monotonic(), len(model.requests)
    assert reached == THRESHOLD
    asked += [ask(number) for number in range(1, turns)]
    await asyncio.sleep(down)
    model.script = ["rules"]
    recovered, meanwhile = time.monotonic(), len(model.requests)
    assert meanwhile - reached <= (recovered - opened) / PAUSE + 1
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    first = time.monotonic() - recovered
    return list(await asyncio.gather(*asked)), meanwhile, first


async def test_a_model_that_is_down_is_asked_once_a_pause_whoever_waits(
    client: Client, worker: WorkerSpec, settings_env: SettingsEnv
) -> None:
    with scripted_model(settings_env, "server_error") as model:
        replies, meanwhile, _ = await wait_out(client, worker, model, turns=9, down=2)
        assert meanwhile > THRESHOLD  # it was tried
        assert not any(reply.failed for reply in replies)
        # One request an attempt, in each loop: nobody below retries. What was held back was not paid for.
        assert sum(reply.tokens for reply in replies) == A_CALL * len(model.requests)
        assert any("closed" in line for line in breakers())


@pytest.mark.long
async def test_thirty_seconds_down(
    client: Client, worker: WorkerSpec, settings_env: SettingsEnv
) -> None:
    with scripted_model(settings_env, "server_error") as model:
        replies, meanwhile, first = await wait_out(client, worker, model, turns=60, down=30)
        print(
            f"{len(replies)} turns, {meanwhile} requests in 30 s, first answer {first:.2f} s after"
        )
        assert not any(reply.failed for reply in replies)
        assert sum(reply.tokens for reply in replies) == A_CALL * len(model.requests)


async def test_a_turn_whose_model_stays_down_has_an_end_and_says_why(
    client: Client,
    worker: WorkerSpec,
    settings_env: SettingsEnv,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also one that was held back whenever it came."""
    from workshop_lib.agents.model_call import PLAN_OPTIONS

    monkeypatch.setitem(PLAN_OPTIONS, "schedule_to_close_timeout", timedelta(seconds=3))
    with scripted_model(settings_env, "server_error") as model:
        held = breaker_of(f"The model openai/scripted at {model.base}")
        held.failures, held.reason = THRESHOLD, "it is on fire"
        held._until = time.monotonic() + 1_000
        reply = await ChatClient(client, task_queue=worker.task_queue).send("Hello", timeout=LIMIT)
        assert reply.failed and reply.text.startswith(MODEL_DOWN)
        assert "it is on fire" in reply.text and not model.requests


# --- MCP ---------------------------------------------------------------------------------------------


@contextmanager
def broken_server() -> Iterator[tuple[int, list[str]]]:
    """A web server that answers every request with 500; its port, and what it was asked for."""
    asked: list[str] = []

    class Broken(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(500)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


@pytest_asyncio.fixture
async def it_only(settings_env: SettingsEnv, tmp_path: Path) -> AsyncIterator[None]:
    """The IT team's server, with one tool; the other team's is down."""
    settings_env(WORKSHOP_STATE_DIR=tmp_path, FINANCE_MCP_PORT=free_port())
    server = FastMCP("it")

    @server.tool
    def get_ip() -> str:
        """Get the IP address of this machine."""
        return "172.16.0.1"

    await serve_mcp(server)
    yield
    await asyncio.to_thread(stop_all)


async def test_a_server_of_tools_that_is_down_costs_one_try_and_the_other_team_works(
    client: Client, worker: WorkerSpec, settings_env: SettingsEnv, it_only: None
) -> None:
    async def ask() -> str:
        chat = ChatClient(client, "mcp", task_queue=worker.task_queue)
        return (await chat.send("What is my IP address?", timeout=LIMIT)).text

    with broken_server() as (port, asked):
        settings_env(FINANCE_MCP_PORT=port)
        texts = [await ask()]
        opened, tried = time.monotonic(), len(asked)
        each, rest = divmod(tried, LISTING_TRIES)  # of one try: it asks in both protocols
        assert each and not rest
        texts += await asyncio.gather(*(ask() for _ in range(5)))
        assert (len(asked) - tried) / each <= (time.monotonic() - opened) / PAUSE + 1
    assert all("172.16.0.1" in text for text in texts)
    assert all("the finance team's MCP server" in text for text in texts)


@pytest.mark.long
async def test_a_call_to_a_server_that_is_known_to_be_down_is_given_up_within_seconds(
    client: Client, worker: WorkerSpec, it_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not after the minute that a team may take for its answer."""
    monkeypatch.setattr(mcp_clients, "PATIENCE", 1.0)
    finance = FastMCP("finance")

    @finance.tool
    def stock_price(ticker: str) -> str:
        """Get the stock price of a company by its ticker symbol."""
        return f"{ticker} costs 242.80 USD"

    served = await serve_mcp(finance)
    chat = ChatClient(client, "mcp", task_queue=worker.task_queue)
    question = "What's the stock price of TSLA?"
    assert "242.8" in (await chat.send(question, timeout=LIMIT)).text
    await asyncio.to_thread(stop, served.key)
    known = next(one for one in all_breakers() if "finance" in one.target)
    known.failures, known.reason, known._since = THRESHOLD, "it is gone", time.monotonic() - 600
    async with asyncio.timeout(45):
        reply = await chat.send(question, timeout=LIMIT)
    assert reply.tool_calls == ["stock_price"] and "the finance team" in reply.text
    assert "172.16.0.1" in (await chat.send("What is my IP address?", timeout=LIMIT)).text


# --- Nexus -------------------------------------------------------------------------------------------


async def test_a_team_that_did_not_answer_is_waited_for_shortly_the_next_time(
    client: Client, worker: WorkerSpec, unserved_teams: Teams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_tools, "PATIENCE", timedelta(seconds=2))
    start = ChatStart(team_timeout=3)
    chat = ChatClient(client, task_queue=worker.task_queue, start=start)
    for seconds in (3, 2):
        text = (await chat.send("What's the stock price of TSLA?", timeout=LIMIT)).text
        assert f"the finance team did not answer within {seconds} s" in text


@service_handler(service=FinanceService)
class OutOfOrder:
    """The finance team's door, behind which nothing works."""

    @sync_operation
    async def stock_price(self, ctx: StartOperationContext, request: StockPriceInput) -> StockPrice:
        raise HandlerError("the price service is down", type=HandlerErrorType.INTERNAL)

    @sync_operation
    async def calculate_roi(self, ctx: StartOperationContext, request: RoiInput) -> Roi:
        raise HandlerError("the price service is down", type=HandlerErrorType.INTERNAL)


@pytest.mark.long
async def test_a_call_that_the_server_really_holds_back(
    client: Client, worker: WorkerSpec, unserved_teams: Teams
) -> None:
    broken = replace(unserved_teams.finance, nexus_handlers=[OutOfOrder])
    start = ChatStart(team_timeout=90)
    chat = ChatClient(client, task_queue=worker.task_queue, start=start)
    async with unserved_teams.serving(broken):
        asking = asyncio.create_task(chat.send("What's the stock price of TSLA?", timeout=LIMIT))
        lines = await waits_for(chat.handle, until="held back by the server, ", timeout=60)
    print("\n".join(lines))
    text = "\n".join(lines)
    assert "The circuit breaker is open" in text and "the price service is down" in text
    assert "failed attempts, held back by the server" in text
    # The team's own worker comes, and the turn goes on when the server lets one try.
    async with unserved_teams.serving(unserved_teams.finance):
        assert "242.8" in (await asking).text


def pending(state: str, **fields: Any) -> PendingNexusOperationInfo:
    made = PendingNexusOperationInfo(
        endpoint="finance",
        operation="stock_price",
        state=PendingNexusOperationState.Value(f"PENDING_NEXUS_OPERATION_STATE_{state}"),
        last_attempt_failure=Failure(message="the price service is down"),
        **{name: value for name, value in fields.items() if isinstance(value, int | str)},
    )
    for name, seconds in fields.items():
        if isinstance(seconds, float):
            getattr(made, name).FromNanoseconds(int(seconds * 1e9))
    return made


def test_what_the_server_says_of_an_operation_is_said() -> None:
    now = 1_800_000_000.0
    blocked = _operation(
        pending(
            "BLOCKED",
            attempt=6,
            blocked_reason="The circuit breaker is open.",
            last_attempt_complete_time=now - 2,
        ),
        now,
    )
    [said] = blocked.troubles.values()
    assert "(The circuit breaker is open), after 6 failed attempts, the last 2 s ago" in said
    assert "the price service is down" in said and "5 s here" in said and not blocked.failing
    assert "held back by the server" in blocked.lines[0]
    backing_off = _operation(
        pending("BACKING_OFF", attempt=1, next_attempt_schedule_time=now + 2), now
    )
    assert backing_off.lines[0].endswith("1 failed attempt, again in 2 s")
