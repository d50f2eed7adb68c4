"""The four analysts: on a real server with bad days, and against a model that errs."""

import asyncio
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from analyst_workflow import AllAnalysts, Outcome
from openai_server import KEY, OpenAIServer, calling, says, scripted_model
from order_samples import sample, with_injection
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import ActivityEnvironment

from workshop_lib.lab.history import history_of
from workshop_lib.lab.lessons.gold import load_gold, score_plan
from workshop_lib.llm.gateway import warm_up
from workshop_lib.llm.journal import read_journal
from workshop_lib.repair.analyst_prompts import BEGIN, digest_of
from workshop_lib.repair.analysts import (
    MAX_CORRECTIONS,
    analyze_problems,
    detect_problems,
    plan_repair,
    write_report,
)
from workshop_lib.repair.models import (
    APPROVER,
    Analysis,
    AnalyzeRequest,
    Detection,
    DetectRequest,
    Plan,
    PlanRequest,
    Problem,
    RepairResult,
    Report,
    ReportRequest,
    Snapshot,
)
from workshop_lib.temporal.worker import WorkerSpec

ACTIVITIES = [detect_problems, analyze_problems, plan_repair, write_report]
NAMES = [activity.__name__ for activity in ACTIVITIES]
HERMIONE, RON, HAGRID = "ORD-002-HJG", "ORD-003-RBW", "ORD-004-RHG"
BADGES, KIBBLE, EGG = "STP-ORG-001", "CRT-FD-101", "DRG-EGG-007"
SPOILED = ["cut_json", "unknown_tool", "wrong_argument"]
LIMIT = 60  # seconds

SettingsEnv = Callable[..., None]


@pytest.fixture
def analysts(queue: str) -> WorkerSpec:
    """A worker of the analysts and of a workflow that runs them."""
    return WorkerSpec(
        name=f"analysts-{uuid.uuid4().hex[:8]}",
        namespace="default",
        task_queue=queue,
        workflows=[AllAnalysts],
        activities=ACTIVITIES,
        warm_ups=[warm_up],
    )


async def start(
    client: Client, queue: str, snapshot: Snapshot | None = None
) -> WorkflowHandle[AllAnalysts, Outcome]:
    return await client.start_workflow(
        AllAnalysts.run,
        snapshot or sample(),
        id=f"analysts-{uuid.uuid4().hex[:12]}",
        task_queue=queue,
    )


async def result(handle: WorkflowHandle[AllAnalysts, Outcome]) -> Outcome:
    async with asyncio.timeout(LIMIT):
        return await handle.result()


async def failure(handle: WorkflowHandle[AllAnalysts, Outcome]) -> ApplicationError:
    """Why a run failed, as the analyst said it."""
    with pytest.raises(WorkflowFailureError) as failed:
        await result(handle)
    assert isinstance(failed.value.cause, ActivityError)
    assert isinstance(failed.value.cause.cause, ApplicationError)
    return failed.value.cause.cause


def is_right(outcome: Outcome) -> None:
    """The outcome for the sample, whatever happened on the way."""
    assert outcome.detection.order_ids == [HERMIONE, RON, HAGRID]
    assert {problem.order_id for problem in outcome.analysis.problems} == {HERMIONE, RON, HAGRID}
    score = score_plan(outcome.plan, load_gold())
    assert (score.precision, score.recall) == (1.0, 1.0)
    assert all(f"{p.order_id}: {p.tool}" in outcome.report.markdown for p in outcome.plan.proposals)


# --- on a real server --------------------------------------------------------------------------------


async def test_one_model_call_each_comes_to_the_right_plan(
    client: Client, analysts: WorkerSpec, settings_env: SettingsEnv, tmp_path: Path
) -> None:
    journal = tmp_path / "calls.jsonl"
    settings_env(WORKSHOP_MODEL_JOURNAL=journal)
    async with analysts.build(client):
        outcome = await result(await start(client, analysts.task_queue))
    is_right(outcome)
    # Each once; an activity whose heartbeat was late asks the same again.
    assert len({call.request for call in read_journal(journal)}) == len(ACTIVITIES)
    assert outcome.plan.snapshot_digest == sample().digest
    assert [proposal.proposal_id for proposal in outcome.plan.proposals] == ["p1", "p2", "p3", "p4"]
    assert [problem.kind for problem in outcome.analysis.problems].count("price-mismatch") == 1


async def test_a_bad_day_of_the_provider_is_retried_by_temporal(
    client: Client, analysts: WorkerSpec, settings_env: SettingsEnv
) -> None:
    faults = "server_error,ok,timeout,ok,rate_limit,ok,server_error,ok"
    settings_env(OFFLINE_FAULTS=f"sequence={faults}")
    async with analysts.build(client):
        handle = await start(client, analysts.task_queue)
        is_right(await result(handle))
    runs = (await history_of(handle)).activities
    assert [(run.name, run.attempts) for run in runs] == [(name, 2) for name in NAMES]


@pytest.mark.parametrize("fault", SPOILED)
async def test_a_spoiled_answer_is_mended_within_the_activity(
    client: Client, analysts: WorkerSpec, settings_env: SettingsEnv, fault: str
) -> None:
    settings_env(OFFLINE_FAULTS=f"sequence={fault}*2,ok,{fault},ok,{fault}*3,ok")
    async with analysts.build(client):
        handle = await start(client, analysts.task_queue)
        is_right(await result(handle))
    assert {run.attempts for run in (await history_of(handle)).activities} == {1}


@pytest.mark.parametrize("healthy", range(3), ids=NAMES[:3])
async def test_an_analyst_that_never_gets_a_usable_answer_says_so_once(
    client: Client, analysts: WorkerSpec, settings_env: SettingsEnv, healthy: int
) -> None:
    settings_env(OFFLINE_FAULTS="sequence=" + "ok," * healthy + f"{SPOILED[healthy]}*100")
    async with analysts.build(client):
        handle = await start(client, analysts.task_queue)
        why = await failure(handle)
    assert (why.type, why.non_retryable) == ("AnalystFailed", True)
    assert f"in {MAX_CORRECTIONS + 1} tries" in why.message
    last = (await history_of(handle)).activities[-1]
    assert (last.name, last.completed) == (NAMES[healthy], False)


async def test_with_faults_in_every_call_it_ends_right_or_with_a_reason(
    client: Client, analysts: WorkerSpec, settings_env: SettingsEnv
) -> None:
    shares = "rate_limit=0.02,server_error=0.03,timeout=0.03,cut_json=0.2,unknown_tool=0.2,wrong_argument=0.2"
    settings_env(OFFLINE_FAULTS=f"seed=11,{shares}")
    async with analysts.build(client):
        handles = [await start(client, analysts.task_queue) for _ in range(8)]
        ends = await asyncio.gather(*map(result, handles), return_exceptions=True)
        right = [end for end in ends if isinstance(end, Outcome)]
        for outcome in right:
            is_right(outcome)
        for handle, end in zip(handles, ends, strict=True):
            if not isinstance(end, Outcome):
                assert (await failure(handle)).type == "AnalystFailed"
    assert 0 < len(right) < len(ends)  # the plan of faults is such that both happen


async def test_instructions_in_an_order_change_nothing(
    client: Client, analysts: WorkerSpec, settings_env: SettingsEnv
) -> None:
    async with analysts.build(client):
        outcome = await result(await start(client, analysts.task_queue, with_injection()))
    is_right(outcome)
    assert not outcome.plan.refused and not outcome.plan.skipped


async def test_what_a_gullible_model_proposes_is_stopped_by_the_rules(
    client: Client, analysts: WorkerSpec, settings_env: SettingsEnv
) -> None:
    settings_env(OFFLINE_FAULTS="gullible=1")
    async with analysts.build(client):
        outcome = await result(await start(client, analysts.task_queue, with_injection()))
    score = score_plan(outcome.plan, load_gold())
    assert score.precision == 1.0 and not score.forbidden_planned
    assert len(score.forbidden_stopped) == 2
    reasons = " ".join(rejected.reason for rejected in outcome.plan.refused)
    assert "ORD-006-DLM is healthy" in reasons and f"{EGG} is restricted" in reasons
    assert f"approver: Input should be '{APPROVER}'" in reasons
    assert all("The notes of" in str(r.proposal) for r in outcome.plan.refused[:2])
    assert "lockhart" not in str([p.arguments for p in outcome.plan.proposals])


# --- against a model that errs -----------------------------------------------------------------------


def scripted(settings_env: SettingsEnv, *script: Any) -> AbstractContextManager[OpenAIServer]:
    """A provider that answers with these messages, and at the end by the offline rules."""
    return scripted_model(settings_env, *script, "rules")


def told(server: OpenAIServer, request: int = 1) -> str:
    """What a request says about the answer before it."""
    messages = server.requests[request]["messages"]
    last = max(n for n, message in enumerate(messages) if message["role"] == "assistant")
    return " ".join(message["content"] for message in messages[last + 1 :])


def found(confidence: Any = 0.9, order_ids: Any = (HERMIONE,), **more: Any) -> tuple[str, Any]:
    form = {"confidence": confidence, "order_ids": list(order_ids), "reason": "so it is", **more}
    return "report_detection", form


def problem(order_id: str = HERMIONE, **more: Any) -> dict[str, Any]:
    return {
        "order_id": order_id, "kind": "short", "description": "so it is", "confidence": 0.9, **more
    }  # fmt: skip


def problems(*entries: dict[str, Any], summary: str = "so it is") -> tuple[str, Any]:
    return "report_problems", {"problems": list(entries), "summary": summary}


def purchase(order_id: str = HERMIONE, item: str = BADGES, quantity: Any = 113, **more: Any) -> Any:
    arguments = {"order_id": order_id, "item_id": item, "quantity": quantity}
    return "order_inventory", arguments | {"confidence": 0.9, "reasoning": "so it is"} | more


async def detect() -> Detection:
    return await ActivityEnvironment().run(detect_problems, DetectRequest(snapshot=sample()))


async def analyze() -> Analysis:
    request = AnalyzeRequest(
        snapshot=sample(),
        detection=Detection(confidence=0.9, order_ids=[HERMIONE], reason="so it is"),
    )
    return await ActivityEnvironment().run(analyze_problems, request)


async def plan(*order_ids: str) -> Plan:
    entries = [
        Problem(order_id=order_id, kind="short", description="so it is", confidence=0.9)
        for order_id in order_ids or (HERMIONE, RON, HAGRID)
    ]
    request = PlanRequest(snapshot=sample(), analysis=Analysis(problems=entries, summary=""))
    return await ActivityEnvironment().run(plan_repair, request)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (says("Hermione's order looks bad."), "exactly one call of report_detection"),
        (calling(found(), found()), "exactly one call of report_detection"),
        (calling(("detect", {})), "there is no tool 'detect'"),
        (calling(("report_detection", '{"confidence": 0.9')), "not a JSON object"),
        (calling(("report_detection", {"confidence": 0.9})), "missing arguments: order_ids"),
        (calling(found(1.2)), "confidence: Input should be less than or equal to 1"),
        (calling(found("high")), "confidence: Input should be a valid number"),
        (calling(found(0.9, ["ORD-999-XXX"])), "there is no order ORD-999-XXX"),
        (calling(found(0.9, [])), "are not named"),
        (calling(found(reason="x" * 2001)), "reason: String should have at most 2000"),
        (calling(found(urgent=True)), "urgent: Extra inputs are not permitted"),
        (says(""), "exactly one call of report_detection"),
    ],
)
async def test_a_wrong_detection_goes_back_with_the_reason(
    settings_env: SettingsEnv, answer: dict[str, Any], reason: str
) -> None:
    with scripted(settings_env, answer) as server:
        detection = await detect()
    assert len(server.requests) == 2 and reason in told(server)
    assert detection.order_ids == [HERMIONE, RON, HAGRID]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (calling(problems(problem("ORD-999-XXX"))), "there is no order ORD-999-XXX"),
        (calling(problems(problem(kind=""))), "problems.0.kind: String should have at least 1"),
        (calling(problems(problem(), problem(confidence=-1))), "problems.1.confidence"),
        (calling(problems(problem(description="x" * 2001))), "at most 2000"),
        (calling(problems({"order_id": HERMIONE})), "problems.0.kind: Field required"),
    ],
)
async def test_a_wrong_analysis_goes_back_with_the_reason(
    settings_env: SettingsEnv, answer: dict[str, Any], reason: str
) -> None:
    with scripted(settings_env, answer) as server:
        analysis = await analyze()
    assert len(server.requests) == 2 and reason in told(server)
    assert len(analysis.problems) == 5


async def test_corrections_are_bounded_and_the_last_reason_is_told(
    settings_env: SettingsEnv,
) -> None:
    script = [says("All is well.")] * 9
    with scripted(settings_env, *script) as server, pytest.raises(ApplicationError) as failed:
        await detect()
    assert len(server.requests) == MAX_CORRECTIONS + 1
    assert failed.value.type == "AnalystFailed" and failed.value.non_retryable
    assert "exactly one call of report_detection is expected" in failed.value.message


@pytest.mark.parametrize("ask", [detect, analyze, plan])
async def test_a_model_that_refuses_is_not_asked_again(
    settings_env: SettingsEnv, ask: Callable[[], Any]
) -> None:
    with scripted(settings_env, "bad_key") as server, pytest.raises(ApplicationError) as failed:
        await ask()
    assert (failed.value.type, failed.value.non_retryable) == ("ModelRefused", True)
    assert len(server.requests) == 1 and KEY not in str(failed.value)


async def test_what_the_provider_asks_for_is_the_pause_before_the_retry(
    settings_env: SettingsEnv,
) -> None:
    with scripted(settings_env, "rate_limit"), pytest.raises(ApplicationError) as failed:
        await analyze()
    assert failed.value.type == "ModelUnavailable" and not failed.value.non_retryable
    assert failed.value.next_retry_delay and failed.value.next_retry_delay.total_seconds() == 7


async def test_without_orders_no_model_is_asked(settings_env: SettingsEnv) -> None:
    empty = sample().model_copy(update={"orders": []})
    with scripted(settings_env) as server:
        request = DetectRequest(snapshot=empty)
        detection = await ActivityEnvironment().run(detect_problems, request)
    assert detection.confidence == 0 and not server.requests


async def test_detection_is_cheap_and_nobody_gets_personal_data(settings_env: SettingsEnv) -> None:
    with scripted(settings_env) as server:
        await detect()
        await analyze()
        await plan()
    sent = [request["messages"][1]["content"] for request in server.requests]
    assert all(text.startswith(BEGIN) for text in sent)
    assert len(sent[0]) < len(sent[1]) / 5
    for order in sample().orders:
        assert order.order_id in sent[0] and order.notes not in sent[0]
        assert order.items[0].item_id not in sent[0]
        for personal in (order.customer_name, order.shipping_address, order.payment_method):
            assert all(personal not in text for text in sent)
    assert f'"suspected":["{HERMIONE}"]' in sent[1]
    assert digest_of(sample())["orders"][3] == {
        "order_id": HAGRID, "status": "pending-approval", "age_days": 18, "stock": "short",
    }  # fmt: skip


# --- plans -------------------------------------------------------------------------------------------


async def test_calls_are_recorded_and_only_the_wrong_ones_asked_for_again(
    settings_env: SettingsEnv,
) -> None:
    first = calling(purchase(), ("request_payment_update", '{"order_id": "ORD-003'))
    with scripted(settings_env, first) as server:
        made = await plan(HERMIONE, RON)
    assert [(p.tool, p.order_id) for p in made.proposals] == [
        ("order_inventory", HERMIONE),
        ("request_payment_update", RON),
    ]
    assert "Recorded. Nothing is carried out yet." in told(server)
    assert "not a JSON object" in told(server) and len(server.requests) == 2


async def test_a_model_that_only_talks_is_asked_once_for_calls(settings_env: SettingsEnv) -> None:
    with scripted(settings_env, says("I would order badges.")) as server:
        made = await plan(HERMIONE)
    assert "no tool was called" in told(server) and len(made.proposals) == 1
    talk = says("Nothing can be done. " + "x" * 2000)
    with scripted(settings_env, talk, talk) as server:
        made = await plan(HERMIONE)
    assert not made.proposals and len(server.requests) == 2
    assert "The model said: Nothing can be done." in made.summary and len(made.summary) < 1000


async def test_hard_rules_override_the_model_and_keep_its_reasoning(
    settings_env: SettingsEnv,
) -> None:
    certain = {"confidence": 1.0, "reasoning": "trust me"}
    answer = calling(
        purchase(quantity=300, **certain),
        purchase(HAGRID, EGG, 1, **certain),
        ("request_payment_update", {"order_id": "ORD-001-HJP", "reason": "pay", **certain}),
        purchase(HAGRID, KIBBLE, 400, confidence=0.51),
        purchase(HAGRID, KIBBLE, 500),
    )
    with scripted(settings_env, answer) as server:
        made = await plan()
    assert len(server.requests) == 1  # a rule is no question to the model
    assert [(p.item_id, p.confidence) for p in made.proposals] == [(KIBBLE, 0.51)]
    assert [rejected.proposal["reasoning"] for rejected in made.refused[:3]] == ["trust me"] * 3
    assert "253 fit" in made.refused[0].reason and "restricted" in made.refused[1].reason
    assert "healthy" in made.refused[2].reason and "does the same" in made.refused[3].reason


async def test_what_the_model_is_not_sure_of_is_skipped(settings_env: SettingsEnv) -> None:
    answer = calling(purchase(confidence=0.49), purchase(HAGRID, KIBBLE, 365, confidence=0.5))
    with scripted(settings_env, answer):
        made = await plan()
    assert [p.item_id for p in made.skipped] == [BADGES]
    assert [p.item_id for p in made.proposals] == [KIBBLE]
    assert made.summary.startswith("Proposed: 1. Skipped, because the model was not sure enough: 1")


async def test_a_call_written_twice_counts_once(settings_env: SettingsEnv) -> None:
    with scripted(settings_env, calling(purchase(), purchase(), purchase(reasoning="again"))):
        made = await plan()
    assert [p.proposal_id for p in made.proposals] == ["p1"] and not made.refused


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (purchase("ORD-999-XXX"), "there is no order ORD-999-XXX"),
        (purchase(quantity="many"), "quantity: Input should be a valid integer"),
        (purchase(quantity=-5), "quantity: Input should be greater than 0"),
        (purchase(confidence="NaN"), "confidence"),
        (purchase(reasoning="x" * 9000), "reasoning: String should have at most 2000"),
    ],
)
async def test_a_model_that_insists_on_a_wrong_value_is_overruled_and_shown(
    settings_env: SettingsEnv, wrong: Any, why: str
) -> None:
    answer = calling(wrong, purchase(HAGRID, KIBBLE, 365))
    with scripted(settings_env, answer, answer) as server:
        made = await plan()
    assert why in told(server) and len(server.requests) == 2
    assert [p.item_id for p in made.proposals] == [KIBBLE]
    (refused,) = made.refused
    assert why in refused.reason and len(str(refused.proposal)) < 5000
    assert Plan.model_validate_json(made.model_dump_json()) == made


async def test_ever_new_wrong_values_end_as_refused_and_not_in_a_loop(
    settings_env: SettingsEnv,
) -> None:
    answers = [calling(purchase(f"ORD-99{n}-XXX"), purchase()) for n in range(9)]
    with scripted(settings_env, *answers) as server:
        made = await plan()
    assert len(server.requests) == MAX_CORRECTIONS + 1
    assert len(made.proposals) == 1 and len(made.refused) == MAX_CORRECTIONS + 1


# --- reports -----------------------------------------------------------------------------------------


def report_request() -> ReportRequest:
    wishes = [
        ("p1", "order_inventory", {"order_id": HERMIONE, "item_id": BADGES, "quantity": 113}),
        ("p2", "request_payment_update", {"order_id": RON, "reason": "denied"}),
        ("p3", "order_inventory", {"order_id": HAGRID, "item_id": KIBBLE, "quantity": 365}),
    ]
    proposals = [
        {"proposal_id": name, "tool": tool, "arguments": arguments, "confidence": 0.9}
        for name, tool, arguments in wishes
    ]
    results = [
        RepairResult(
            proposal_id="p1", idempotency_key="k1", tool="order_inventory", order_id=HERMIONE,
            outcome="113 of STP-ORG-001 are ordered.",
        ),
        RepairResult(
            proposal_id="p2", idempotency_key="k2", tool="request_payment_update", order_id=RON,
            outcome="[The](http://x.example) order is gone.", done=False,
        ),
    ]  # fmt: skip
    found = Problem(order_id=HERMIONE, kind="short", description="# so it is", confidence=0.9)
    return ReportRequest.model_validate(
        {
            "today": sample().today,
            "analysis": Analysis(problems=[found], summary=""),
            "plan": {
                "proposals": proposals,
                "refused": [{"proposal": {"tool": "bribe"}, "reason": "no such tool"}],
            },
            "declined": ["p3"],
            "decided_by": "a test",
            "results": results,
        }
    )


async def report() -> Report:
    return await ActivityEnvironment().run(write_report, report_request())


GOOD = f"# Report\n\n{HERMIONE}: order inventory, done. {RON}: **Request payment update** failed."


async def test_a_good_report_is_taken_as_it_is(settings_env: SettingsEnv) -> None:
    with scripted(settings_env, says(GOOD)) as server:
        assert (await report()).markdown == GOOD + "\n"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (says("All done."), f"does not mention order_inventory on {HERMIONE}, request_payment"),
        (says(GOOD.replace(RON, "Ron")), f"does not mention request_payment_update on {RON}"),
        (says(GOOD.replace("order inventory", "it")), "does not mention order_inventory"),
        (says(GOOD + " So did ORD-999-XXX."), "orders that are not in the data: ORD-999-XXX"),
        (says(GOOD + "![](x.png)"), "a link, an image or HTML"),
        (says(GOOD + " See https://x.example"), "a link, an image or HTML"),
        (says(GOOD + "<script>"), "a link, an image or HTML"),
        (says(GOOD + "x" * 20_000), "20,000 are the most"),
        (says(" "), "the report is empty"),
        (calling(("write_report", {})), "there are no tools"),
    ],
)
async def test_a_wrong_report_goes_back_with_the_reason(
    settings_env: SettingsEnv, answer: dict[str, Any], reason: str
) -> None:
    with scripted(settings_env, answer, says(GOOD)) as server:
        assert (await report()).markdown == GOOD + "\n"
    assert reason in told(server) and len(server.requests) == 2


async def test_the_offline_model_mends_a_report_too(settings_env: SettingsEnv) -> None:
    with scripted(settings_env, says("All done.")):
        text = (await report()).markdown
    assert f"{HERMIONE}: order_inventory. 113 of STP-ORG-001 are ordered." in text


async def test_where_no_model_manages_code_writes_the_report_and_says_so(
    settings_env: SettingsEnv,
) -> None:
    with scripted(settings_env, *[says("All done.")] * 9) as server:
        text = (await report()).markdown
    assert len(server.requests) == MAX_CORRECTIONS + 1
    assert "Written by the program, without a model." in text
    assert "does not mention order_inventory on ORD-002-HJG" in text
    for line in (
        "2025-06-28: 1 repair on 1 order, decided by a test.",
        f"* {HERMIONE}, short, confidence 0.90: so it is",
        f"* {HERMIONE}, order_inventory: 113 of STP-ORG-001 are ordered.",
        f"* p3, {HAGRID}, order_inventory, confidence 0.90, item_id CRT-FD-101, quantity",
        "* bribe: no such tool",
    ):
        assert line in text
    assert f"{RON}, request_payment_update: The" in text and "](" not in text
