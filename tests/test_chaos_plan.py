"""A chaos plan: what may stand in it, that it decides the same everywhere, and what its report says."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from workshop_lib import lab
from workshop_lib.errors import WorkshopError
from workshop_lib.temporal.chaos.experiment import Experiment
from workshop_lib.temporal.chaos.plan import KINDS, ChaosPlan, Place
from workshop_lib.temporal.chaos.plan_file import MAX_FILE, chaos_plan
from workshop_lib.temporal.places import Step

SettingsEnv = Callable[..., None]
PLAN = """\
seed: 7
faults:
  - {place: model, kind: rate_limit, chance: 0.3}
  - {place: local_tool, name: calc*, kind: fails, when: {attempt: [1, 2]}}
  - {place: worker, at: activity-report, name: execute_tool, when: {step: 3}}
  - {place: worker, at: workflow-task-after, chance: 0.5}
  - {place: server, when: {event: 20}}
  - {place: nexus, kind: answer_lost, chance: 0.5}
"""
# One strike in the decisions below is written by whoever has this name; the child prints all of them.
DECIDE = """
import json, sys
from workshop_lib.temporal.chaos.plan_file import chaos_plan
from workshop_lib.temporal.places import Step
plan = chaos_plan(sys.argv[1])
print(json.dumps([
    [plan.strikes(n, Step("x", run, str(step), attempt)) for n in range(len(plan.faults))]
    for run in ("chat-a", "chat-b") for step in range(1, 30) for attempt in (1, 2, 3)
]))
"""


def fault(**values: Any) -> dict[str, Any]:
    return {"faults": [values]}


def test_a_plan_is_the_same_from_text_file_and_data(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    plan = chaos_plan(PLAN)
    assert plan == chaos_plan(path) == chaos_plan(str(path)) == chaos_plan(plan)
    assert plan == chaos_plan(json.loads(plan.model_dump_json()))
    assert plan == lab.chaos_plan(path) and len(plan.digest) == 8


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (fault(place="model", kind="rate_limit", chance=1.2), "fault 1 chance"),
        (fault(place="model", kind="rate_limit", chance=float("nan")), "finite"),
        (fault(place="moon", chance=1), "'model', 'local_tool'"),
        (fault(place="model", kind="killed", chance=1), "killed is no kind of model"),
        (fault(place="model", kind="timeout"), "one of chance, when and down_for"),
        (fault(place="model", kind="timeout", chance=1, when={}), "not chance and when"),
        (fault(place="model", kind="cut_json", down_for=3), "has no down_for"),
        (fault(place="worker", chance=1), "it needs `at`"),
        (fault(place="worker", at="nowhere", chance=1), "'activity-report'"),
        (fault(place="worker", at="activity-report", when={"event": 3}), "workflow task"),
        (fault(place="server", when={"event": 3, "step": 2}), "in place of step"),
        (fault(place="mcp", kind="slow", when={"event": 3}), "only a kill"),
        (fault(place="mcp", kind="slow", seconds=99, when={}), "fault 1 seconds"),
        (fault(place="mcp", kind="slow", name="x" * 101, when={}), "fault 1 name"),
        (fault(place="mcp", kind="slow", when={"attempt": 0}), "attempt"),
        (fault(place="mcp", kind="slow", when={}, run="rm -rf"), "fault 1 run"),
        ({"faults": [{"place": "model", "kind": "timeout", "chance": 0.1}] * 101}, "at most 100"),
        ({"seed": True}, "seed"),
        ("seed: 1\nseed: 2\n", "line 2, column 1: this key is there twice"),
        ("faults:\n - {place: [\n", "not YAML at line"),
        ("faults: &all [*all]\n\n", "refers to another place"),
        ("faults:\n - {place: !!python/name:os.system x}\n", "not YAML at line 2"),
        ("faults:\n - {place: model, kind: timeout, on: 2}\n", "it is `when`"),
        ("- 1\n- 2\n", "the whole"),
        ("\n", "the whole"),
        ("[" * 3000 + "\n", "nested too deeply"),
        ("seed: 1\nfaults:\n  - {place: model, kind: timeout, chance: 2}\n", "line 3: fault 1"),
        ("nowhere.yaml", "does not exist"),
        (".", "cannot be read"),
    ],
)
def test_what_is_no_plan_is_told_in_a_sentence(source: Any, said: str) -> None:
    with pytest.raises(WorkshopError) as refused:
        chaos_plan(source)
    assert said in refused.value.what and refused.value.expected
    assert "\n" not in refused.value.what and len(refused.value.what) < 700


def test_a_file_is_bounded_and_text(tmp_path: Path) -> None:
    for content, said in ((b"#" * (MAX_FILE + 1), "too large"), (b"\xff\xfe", "UTF-8")):
        path = tmp_path / "plan.yaml"
        path.write_bytes(content)
        with pytest.raises(WorkshopError, match=said):
            chaos_plan(path)


def test_a_decision_is_the_same_in_another_process() -> None:
    here = chaos_plan(PLAN)
    mine = [
        [here.strikes(n, Step("y", run, str(step), attempt)) for n in range(len(here.faults))]
        for run in ("chat-a", "chat-b")
        for step in range(1, 30)
        for attempt in (1, 2, 3)
    ]
    other = subprocess.run(
        [sys.executable, "-c", DECIDE, PLAN],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(other.stdout) == mine
    drawn = [row[0] for row in mine]
    assert 0.2 < sum(drawn) / len(drawn) < 0.4  # of a chance of 0.3
    assert mine[: len(mine) // 2] != mine[len(mine) // 2 :]  # two runs, two days
    assert chaos_plan(PLAN.replace("seed: 7", "seed: 8")).digest != here.digest


def test_of_an_id_does_not_count_what_is_new_each_time() -> None:
    plan = chaos_plan(fault(place="model", kind="timeout", chance=0.5))

    def day(run: str) -> list[bool]:
        return [plan.strikes(0, Step("x", run, str(step), 1)) for step in range(64)]

    assert day("chat-manual-bad~1") == day("chat-manual-bad~2") != day("chat-manual-good")
    ids = ("5f0c1d7e-6a53-4c1b-9a40-0a3de5c1f001", "000000006a534c1b9a400a3de5c1f002")
    assert day(f"price-AAPL-{ids[0]}") == day(f"price-AAPL-{ids[1]}") == day("price-AAPL-")


def test_more_of_a_chance_takes_no_strike_away() -> None:
    def struck(chance: float) -> set[int]:
        plan = chaos_plan(fault(place="model", kind="timeout", chance=chance))
        return {n for n in range(200) if plan.strikes(0, Step("x", "chat", str(n), 1))}

    assert struck(0) < struck(0.2) < struck(0.6) < struck(1) == {*range(200)}


@pytest.fixture
def begin(settings_env: SettingsEnv, tmp_path: Path) -> Callable[[str], Experiment]:
    settings_env(WORKSHOP_STATE_DIR=tmp_path)
    return lambda text: Experiment.begin(chaos_plan(text))


def test_whoever_takes_over_goes_on_with_the_attempts(begin: Callable[[str], Experiment]) -> None:
    """Of an operation's start the server tells no attempt: the strikes that are written down stand for it."""
    first = begin("faults:\n - {place: nexus, kind: fails, when: {attempt: [1, 2]}}\n")
    step = Step("stock_price", "chat-a", "1")
    assert first.strike(Place.NEXUS, ["stock_price"], step) == 0
    first.struck(0, step)
    after = Experiment(first.plan, first.file)  # of a process that knows nothing but the file
    assert after.strike(Place.NEXUS, ["stock_price"], step) == 0
    after.struck(0, step)
    for experiment in (first, after, Experiment(first.plan, first.file)):
        assert experiment.strike(Place.NEXUS, ["stock_price"], step) is None
        assert experiment.strike(Place.NEXUS, ["stock_price"], step._replace(step="2")) == 0


def test_a_run_comes_to_an_event_once(begin: Callable[[str], Experiment]) -> None:
    experiment = begin("faults:\n - {place: worker, when: {event: 20}}\n")

    def strikes(run: str, event: int) -> bool:
        step = Step("ManualChat", run, "activity 3", event=event)
        due = experiment.strike(Place.WORKER, ["ManualChat"], step) == 0
        if due:
            experiment.struck(0, step)
        return due

    assert [strikes("a", event) for event in (3, 18, 22, 22, 30)] == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert strikes("b", 40)


def test_an_outage_has_a_beginning_and_an_end(
    begin: Callable[[str], Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = begin("faults:\n - {place: model, kind: server_error, down_for: 10}\n")
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    seen = []
    for later in (0, 4, 9, 11, 60):
        now = 1_000_000.0 + later
        step = Step("plan_next_action", f"chat-{later}", "2", 1)
        seen.append(experiment.strike(Place.MODEL, ["plan_next_action"], step) == 0)
        if seen[-1]:
            experiment.struck(0, step)
    assert seen == [True, True, True, False, False]


def test_the_report_says_what_happened_and_why_not(begin: Callable[[str], Experiment]) -> None:
    experiment = begin(PLAN)
    assert all(
        "no worker with this plan has begun" in x.happened for x in experiment.report().lines
    )
    experiment.serves(["plan_next_action", "execute_tool", "ManualChat"])
    model = Step("plan_next_action", "chat-a~17", "2", 1)
    for number in range(6):
        experiment.struck(0, model._replace(step=str(number)))
    experiment.strike(Place.LOCAL_TOOL, ["calculator"], Step("execute_tool", "chat-a", "3", 9))
    experiment.kept(2, Step("execute_tool", "chat-a", "3", 1), "this worker is a thread")
    lines = Experiment(experiment.plan, experiment.file).report().lines
    assert [line.times for line in lines] == [6, 0, 0, 0, 0, 0]
    assert lines[0].happened.startswith("6 ×: plan_next_action step 0 attempt 1 of chat-a,")
    assert lines[0].happened.endswith("and 2 more")
    assert lines[1].happened == (
        "no: execute_tool step 3 attempt 9 of chat-a was reached, but not this step and attempt"
    )
    assert lines[2].happened == "no: this worker is a thread"
    assert lines[3].happened == "no: nothing came there before the end"
    assert lines[5].happened == "no: nothing came there before the end"
    report = experiment.report()
    assert str(report).count("\n") == len(lines) - 1
    assert "<script" not in report._repr_html_() and report._repr_html_().count("<tr>") == 7
    strange = begin("faults:\n - {place: nexus, kind: fails, name: <script>, when: {}}\n")
    strange.serves(["stock_price"])
    assert "no worker with this plan serves <script>" in str(strange.report())
    assert "<script" not in strange.report()._repr_html_()


def test_half_a_line_of_a_killed_process_is_no_error(begin: Callable[[str], Experiment]) -> None:
    experiment = begin(PLAN)
    experiment.serves(["x"])
    with experiment.file.open("a") as file:
        file.write('not json\n{"time": 1, "pid"')
    assert len(experiment.entries()) == 1
    assert replace(experiment, may_kill=True).report().lines


def test_each_kind_can_be_planned() -> None:
    for place, kinds in KINDS.items():
        for kind in kinds:
            kill = {"at": "activity-report"} if kind == "killed" else {}
            plan = chaos_plan(fault(place=place, kind=kind, chance=0.5, **kill))
            assert isinstance(plan, ChaosPlan) and kind in plan.faults[0].title
