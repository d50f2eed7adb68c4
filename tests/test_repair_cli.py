"""`workshop repair …` as a person and as a script meet it: processes with arguments, streams and a status."""

import asyncio
import json
import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from repair_ground import FULL_WAY, assert_repaired_once, dump_of
from workshop_command import LIMIT, Workshop, workshop_command

from workshop_lib.lab.lessons.gold import load_gold, score_plan
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.models import Plan
from workshop_lib.repair.store import OrderStore
from workshop_lib.settings import PROJECT_ROOT, reload_settings
from workshop_lib.temporal.connect import connect


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with workshop_command() as command:
        reload_settings()  # they name the state folder, and with it the server
        yield command
    reload_settings()


def store_of(workshop: Workshop) -> OrderStore:
    return OrderStore(f"sqlite:///{workshop.state / 'orders.db'}")


def eventually(look: Callable[[], list[str]]) -> list[str]:
    """What a look shows once it shows anything, as server lists do a moment after the fact."""
    end = time.monotonic() + LIMIT
    while not (found := look()) and time.monotonic() < end:
        pass  # each look is a process of its own
    return found


def the_plan(document: dict[str, Any]) -> Plan:
    plan = dict(document["plan"])
    digest = plan.pop("digest")
    read = Plan.model_validate(plan)
    assert read.digest == digest == document["plan_digest"]
    return read


class Terminal:
    """A command at a terminal of its own."""

    def __init__(self, workshop: Workshop, *arguments: str) -> None:
        self._seen = ""  # and not yet waited for
        self._here, there = pty.openpty()
        self.process = subprocess.Popen(
            workshop.command(*arguments),
            stdin=there,
            stdout=there,
            stderr=there,
            env=workshop.environment(),
            start_new_session=True,
        )
        os.close(there)

    def until(self, words: str) -> str:
        """Read until these words have come; returns what came up to there."""
        end = time.monotonic() + LIMIT
        while words not in self._seen:
            ready, _, _ = select.select([self._here], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{words!r} did not come: {self._seen}"
            try:
                self._seen += os.read(self._here, 65536).decode()
            except OSError:  # the other end is closed
                pytest.fail(f"it left without {words!r}: {self._seen}")
        before, _, self._seen = self._seen.partition(words)
        return before

    def type(self, line: str) -> None:
        os.write(self._here, f"{line}\n".encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._here)


def test_what_the_labels_call_for_and_nothing_else_and_then_nothing(workshop: Workshop) -> None:
    data = {path: path.read_bytes() for path in (PROJECT_ROOT / "data").iterdir()}
    assert workshop("repair", "reset").returncode == 0
    store = store_of(workshop)
    loaded = dump_of(store)

    first = workshop("repair", "run", "--auto-approve", "--id", "first")
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert [line[7:] for line in lines if line.startswith("state: ")] == FULL_WAY
    for words in ("4 proposed", "confidence 0.9", "p1  done", "# Repair report", ".pdf"):
        assert words in first.stdout, words
    # What was done is told before the report is.
    assert first.stdout.index("p4  done") < first.stdout.index("state: PENDING-REPORT")
    assert_repaired_once(store)
    repaired = dump_of(store)

    second = workshop("repair", "run", "--auto-approve", "--json")
    assert second.returncode == 0, second.stderr
    found = json.loads(second.stdout)
    assert found["state"] == "NO-REPAIR-NEEDED" and found["plan"] is None
    assert "NO-REPAIR-NEEDED" in second.stderr
    assert dump_of(store) == repaired

    shown = json.loads(workshop("repair", "orders", "--json").stdout)
    assert len(shown["orders"]) == 6 and len(shown["repairs"]) == 4
    assert "inventory-ordered" in workshop("repair", "orders").stdout

    assert workshop("repair", "reset").returncode == 0
    assert dump_of(store) == loaded
    assert {path: path.read_bytes() for path in (PROJECT_ROOT / "data").iterdir()} == data

    listed = json.loads(workshop("repair", "list", "--json").stdout)
    ended = {entry["workflow_id"]: entry["status"] for entry in listed}
    assert ended["first"] == ended[found["workflow_id"]] == "completed"
    # The latest is meant where none is named.
    assert workshop("repair", "status").stdout.startswith(found["workflow_id"])
    report = workshop("repair", "report", "first")
    assert report.stdout.startswith("# Repair report") and ".pdf" in report.stderr
    nothing = workshop("repair", "report")
    assert nothing.returncode == 1 and "NO-REPAIR-NEEDED" in nothing.stderr
    assert json.loads(workshop("repair", "plan", "first", "--json").stdout)["proposals"]


def test_a_script_decides_what_a_run_has_left_open(workshop: Workshop) -> None:
    workshop("repair", "reset")
    run = workshop("repair", "run", "--json", "--id", "open")
    assert run.returncode == 0, run.stderr
    left = json.loads(run.stdout)
    assert left["state"] == "PENDING-APPROVAL" and left["decision"] is None
    plan = the_plan(left)
    score = score_plan(plan, load_gold())
    assert (score.precision, score.recall) == (1.0, 1.0)
    # What to type is said, and works with the beginning of the digest.
    told = f"workshop repair approve open --digest {plan.digest[:12]}"
    assert told in run.stderr

    status = json.loads(workshop("repair", "status", "--json").stdout)
    assert (status["workflow_id"], status["plan_digest"]) == ("open", plan.digest)
    shown = workshop("repair", "plan").stdout
    assert plan.digest in shown
    assert all(proposal.proposal_id in shown for proposal in plan.proposals)
    waiting = json.loads(workshop("repair", "list", "--waiting-for-me", "--json").stdout)
    assert [entry["workflow_id"] for entry in waiting] == ["open"]
    bob = workshop("repair", "list", "--waiting-for-me", WORKSHOP_IDENTITY="on", USER_NAME="bob")
    assert bob.returncode == 1 and "bob lacks the scope orders:approve" in bob.stderr
    assert "Traceback" not in bob.stderr
    early = workshop("repair", "report")
    assert early.returncode == 1 and "PENDING-APPROVAL" in early.stderr
    assert workshop("repair", "report", "--planning").stdout.startswith("# Repair plan")

    unseen = workshop("repair", "approve", "open")
    assert unseen.returncode == 2 and "--digest" in unseen.stderr
    wrong = workshop("repair", "approve", "open", "--digest", "f" * 64)
    assert wrong.returncode == 1 and "not that of the plan" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert store_of(workshop).ledger() == []

    terminal = Terminal(workshop, "repair", "approve", "open")
    try:  # without a digest the plan is shown first
        assert plan.digest in terminal.until("Approve this plan? [y/N]")
        terminal.type("n")
        terminal.until("Nothing was decided.")
        assert terminal.process.wait(LIMIT) == 1
    finally:
        terminal.close()

    begun = plan.digest[:12]
    no = workshop("repair", "reject", "--digest", begun, "--reason", "too dear", "--json")
    assert no.returncode == 0, no.stderr
    rejected = json.loads(no.stdout)
    assert rejected["state"] == "REJECTED" and rejected["decision"]["comment"] == "too dear"
    assert store_of(workshop).ledger() == []
    late = workshop("repair", "approve", "open", "--digest", plan.digest)
    assert late.returncode == 1 and "REJECTED" in late.stderr
    nobody = workshop("repair", "approve", "--digest", plan.digest)
    assert nobody.returncode == 1 and "No repair waits" in nobody.stderr


def test_a_person_is_asked_at_the_terminal(workshop: Workshop) -> None:
    workshop("repair", "reset")
    terminal = Terminal(workshop, "repair", "run", "--id", "asked")
    try:
        assert "STP-ORG-001, quantity 113" in terminal.until("or `later`.")
        terminal.type("p1 p99")
        terminal.until("no proposal p99")  # refused in words, and asked again
        terminal.until("or `later`.")
        terminal.type("reject too dear")
        terminal.until("state: REJECTED")
        terminal.until("too dear")
        assert terminal.process.wait(LIMIT) == 0
    finally:
        terminal.close()
    assert store_of(workshop).ledger() == []


def test_a_decision_from_elsewhere_ends_the_question(workshop: Workshop) -> None:
    workshop("repair", "reset")
    terminal = Terminal(workshop, "repair", "run", "--id", "elsewhere")

    async def approve_elsewhere() -> None:
        repair = RepairClient(await connect(), "elsewhere")
        plan = await repair.plan()
        assert plan is not None
        await repair.approve(plan.digest, decided_by="Web UI")

    try:
        terminal.until("or `later`.")
        asyncio.run(approve_elsewhere())
        terminal.until("decided elsewhere")
        terminal.until("state: REPORT-COMPLETED")
        assert terminal.process.wait(LIMIT) == 0
    finally:
        terminal.close()
    assert_repaired_once(store_of(workshop))


def test_an_agent_that_repeats(workshop: Workshop) -> None:
    workshop("repair", "reset")
    begun = workshop("repair", "proactive", "start")
    assert begun.returncode == 0, begun.stderr
    # Not sure enough to act alone: it waits, and says how to decide.
    assert "state: PENDING-APPROVAL" in begun.stdout
    assert "approve proactive-order-repair --digest" in begun.stderr
    assert "workshop up" in begun.stderr
    said = json.loads(workshop("repair", "proactive", "status", "--json").stdout)
    assert (said["state"], said["cycle"], said["cycles"]) == ("PENDING-APPROVAL", 1, [])
    agent, digest = "proactive-order-repair", said["plan_digest"]
    plan = json.loads(workshop("repair", "plan", agent, "--json").stdout)
    (ron,) = [p["proposal_id"] for p in plan["proposals"] if "RBW" in p["arguments"]["order_id"]]

    part = workshop(
        *("repair", "approve", "--digest", digest, "--proposals", ron),
        *("--by", "Minerva", "--comment", "only Ron", "--json"),
    )
    assert part.returncode == 0, part.stderr
    done = json.loads(part.stdout)
    assert done["state"] == "WAITING-FOR-NEXT-CYCLE"
    decision = done["decision"]
    assert (decision["decided_by"], decision["comment"]) == ("Minerva", "only Ron")
    assert decision["approved"] == [ron] and len(decision["declined"]) == 3
    assert [result["proposal_id"] for result in done["results"]] == [ron]
    assert [row.order_id for row in store_of(workshop).ledger()] == ["ORD-003-RBW"]

    woken = workshop("repair", "proactive", "wake")
    assert woken.returncode == 0, woken.stderr
    assert "3 proposed" in woken.stdout  # what was declined is found again
    stopped = workshop("repair", "proactive", "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "after 2 cycles" in stopped.stdout
    ended = workshop("repair", "proactive", "status").stdout
    assert "STOPPED" in ended and "cycle 1: REPORT-COMPLETED, 1 repairs" in ended
    assert "cycle 2: EXPIRED" in ended
    assert len(store_of(workshop).ledger()) == 1


async def terminate(workflow_id: str) -> None:
    client = await connect()
    await client.get_workflow_handle(workflow_id).terminate(rpc_timeout=timedelta(seconds=10))


def test_schedules(workshop: Workshop) -> None:
    made = workshop("repair", "schedule", "create", "--hour", "7", "--json")
    assert made.returncode == 0, made.stderr
    info = json.loads(made.stdout)
    times = [datetime.fromisoformat(text) for text in info["next_times"]]
    assert {(moment.hour, moment.minute) for moment in times} == {(7, 0)}
    assert {later - moment for moment, later in pairwise(times)} == {timedelta(days=1)}
    assert times[0] > datetime.now(UTC)
    twice = workshop("repair", "schedule", "create")
    assert twice.returncode == 1 and "already" in twice.stderr
    changed = workshop("repair", "schedule", "upsert", "--hour", "9", "--today", "2025-06-30")
    assert "at 09:00 UTC" in changed.stdout and "2025-06-30" in changed.stdout

    def shown(*command: str) -> Any:
        return json.loads(workshop("repair", "schedule", *command, "--json").stdout)

    # The list, and the runs, follow a moment later.
    assert eventually(lambda: shown("list")) == ["daily-order-repair"]
    assert workshop("repair", "schedule", "trigger").returncode == 0
    (started,) = eventually(lambda: shown("describe")["runs"])
    assert started.startswith("daily-order-repair-run-")
    asyncio.run(terminate(started))
    assert workshop("repair", "schedule", "delete").returncode == 0
    for gone in ("describe", "trigger", "delete"):
        missing = workshop("repair", "schedule", gone)
        assert missing.returncode == 1 and "There is no schedule" in missing.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--today", "tomorrow"],
        ["run", "--frobnicate"],
        ["frobnicate"],
        ["schedule", "create", "--hour", "24"],
        ["proactive"],
        ["approve", "--json"],
        [],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(workshop: Workshop, arguments: list[str]) -> None:
    done = workshop("repair", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == "" or not arguments or arguments == ["proactive"]


def test_a_repair_that_never_was(workshop: Workshop) -> None:
    done = workshop("repair", "status", "repair-that-never-was")
    assert done.returncode == 1
    assert "There is no repair repair-that-never-was" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
