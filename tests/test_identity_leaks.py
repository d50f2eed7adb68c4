"""A day with identity on, and then a look at everything that is kept of it: no token, no key, and no sealed
value that anybody would accept for anything else."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from identity_ground import LOOPS, House, house, say
from lab_environment import set_env
from leaks import SEALED, histories_of, keys_of, leaks_in, texts_of
from repair_ground import reached
from temporalio.client import WorkflowUpdateFailedError

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.auth.issuer import sign_in
from workshop_lib.lab.lessons.attacker import Attacker, LetIn, sending
from workshop_lib.lab.workers.process import start_process
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.states import Decision, State
from workshop_lib.repair.store import open_store
from workshop_lib.repair.worker import repair as repair_spec
from workshop_lib.settings import get_settings
from workshop_lib.teams.finance.contract import FinanceService, StockPriceInput
from workshop_lib.teams.it.contract import IpInput, JiraMetricsInput
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.service import client_for

HR = "Get JIRA metrics for project HR-1"
QUESTIONS = (HR, "What is my IP address and the stock price of NVDA?")
AT_ONCE = 8


async def a_day(ground: House, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Chats of all loops, served by a process that writes a log, and a repair. Returns their queues."""
    settings = get_settings()
    set_env(monkeypatch, REPAIR_QUEUE=f"repair-{uuid.uuid4().hex[:8]}")
    spec = orchestrator().with_queue(f"chat-{uuid.uuid4().hex[:8]}")
    process = await start_process(replace(spec, name=spec.task_queue))
    try:
        for loop in LOOPS:
            alice = ChatClient(await ground.client("alice"), loop, task_queue=spec.task_queue)
            for question in QUESTIONS:
                assert not (await say(alice, question)).failed
            bob = ChatClient(
                await ground.client("bob"), loop, alice.session, task_queue=spec.task_queue
            )
            assert (await say(bob, HR)).failed
        repairs = repair_spec()
        async with repairs.build(await client_for(repairs)):
            run = await RepairClient.start(await ground.client("alice"))
            await reached(run, State.PENDING_APPROVAL)
            plan = await run.plan()
            assert plan is not None
            seen = RepairClient(await ground.client("carol"), run.workflow_id)
            await seen.approve(plan.digest)
            assert (await run.outcome()).state is State.COMPLETED
    finally:
        await asyncio.to_thread(process.stop)
    return {spec.task_queue, repairs.task_queue, settings.it_queue, settings.finance_queue}


async def test_what_is_kept_of_a_day_can_be_used_by_nobody(
    temporal_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = tmp_path / "state"
    caplog.set_level(logging.DEBUG)
    async with house(temporal_server, state) as ground:
        queues = await a_day(ground, monkeypatch)
        settings, secret = get_settings(), keys_of(state)
        written: dict[str, str] = {}
        for namespace in ("default", settings.it_namespace, settings.finance_namespace):
            found = await histories_of(await connect(namespace), queues)
            assert found, f"nothing has run in {namespace}"
            written |= found
        files = list(texts_of(state))
        assert any("log" in text.partition(":")[0] for text in files)
        assert len(secret) == 5
        assert leaks_in([*written.values(), *files, caplog.text], secret) == []
        # The look itself finds what it looks for.
        token = sign_in("alice").token("it")
        assert leaks_in([f"x {token}", f"y {min(secret)}"], secret) != []
        values = {value for text in written.values() for value in SEALED.findall(text)}
        assert len(values) >= 3 * 5
        logs = "\n".join([*files, caplog.text])
        assert not SEALED.search(logs), "a sealed value in a log"
        ground.runs.clear()
        await nobody_accepts(ground, values)
        assert ground.runs == []


async def nobody_accepts(ground: House, values: set[str]) -> None:
    """Each value with other arguments, for another operation, team, session and decision."""
    attacker = Attacker(ground.urls["it"], ground.chat_spec.task_queue)
    demo = JiraMetricsInput(project="DEMO-456")
    stock = StockPriceInput(ticker="AAPL")
    turns = asyncio.Semaphore(AT_ONCE)
    accepted: list[tuple[str, str, str]] = []

    async def try_all(value: str, run: RepairClient, digest: str) -> None:
        attempts: dict[str, Callable[[], Awaitable[str]]] = {
            "the same call": lambda: attacker.nexus(value),
            "other arguments": lambda: attacker.nexus(value, demo),
            "another operation": lambda: attacker.nexus(value, IpInput(), "get_ip"),
            "the other team": lambda: attacker.nexus(value, stock, "stock_price", FinanceService),
            "a start": lambda: attacker.workflow(value),
            "an activity": lambda: attacker.activity(value),
            "a message": lambda: attacker.update(value, text=HR),
            "a token": lambda: attacker.mcp(value),
            "a decision": lambda: decided_by(value, run, digest),
        }
        for name, attempt in attempts.items():
            async with turns:
                try:
                    assert await attempt()
                except LetIn as error:
                    accepted.append((name, value[:30], str(error)))

    spec = repair_spec()
    open_store().reset()
    async with spec.build(await client_for(spec)):
        run = await RepairClient.start(await ground.client("alice"))
        await reached(run, State.PENDING_APPROVAL)
        plan = await run.plan()
        assert plan is not None
        await asyncio.gather(*(try_all(value, run, plan.digest) for value in values))
    assert accepted == []


async def decided_by(value: str, run: RepairClient, digest: str) -> str:
    decision = Decision(approve=True, plan_digest=digest, decided_by="carol")
    with sending(await connect(), value) as mallory:
        try:
            handle = mallory.get_workflow_handle(run.workflow_id)
            answer = await handle.execute_update("decide", decision)
        except WorkflowUpdateFailedError as error:
            return str(error.cause)
    raise LetIn(f"the desk answered {answer!r}")
