"""What a run that was disturbed may have cost: model calls that were paid for again, and calls of a team that
were made again. Left out: what the run has come to (`crash_stories`)."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crash_stories import LIMIT, Story
from teams_environment import calls_of, runs_on
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from workshop_lib.lab.history import decode
from workshop_lib.lab.workers.kill_points import Where
from workshop_lib.llm.journal import read_journal
from workshop_lib.settings import get_settings

SCHEDULED = EventType.EVENT_TYPE_NEXUS_OPERATION_SCHEDULED
MODELS = {"plan_next_action", "invoke_model_activity"}
MODELS |= {"detect_problems", "analyze_problems", "plan_repair", "write_report"}

Paid = dict[str, dict[str, set[int]]]


async def events_of_run(story: Story, client: Client) -> Sequence[HistoryEvent]:
    return (await story.handle(client).fetch_history()).events


def paid_for(journal: Path) -> Paid:
    """The attempts in which a model was asked, by workflow and activity."""
    paid: Paid = defaultdict(lambda: defaultdict(set))
    for entry in read_journal(journal):
        paid[entry.workflow_id][entry.activity_id].add(entry.attempt)
    return paid


@dataclass
class Asked:
    """A model activity of a run: how often it was handed out, and whether its answer is in the history."""

    attempts: int = 0
    answered: bool = False


def model_activities(events: Sequence[HistoryEvent]) -> dict[str, Asked]:
    """The activities of a run that ask a model, by id."""
    found: dict[str, Asked] = {}
    ids: dict[int, str] = {}
    for event in events:
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name in MODELS:
            ids[event.event_id] = scheduled.activity_id
            found[scheduled.activity_id] = Asked()
        started = event.activity_task_started_event_attributes
        if started.scheduled_event_id in ids:
            found[ids[started.scheduled_event_id]].attempts = started.attempt
        done = event.activity_task_completed_event_attributes
        if done.scheduled_event_id in ids:
            found[ids[done.scheduled_event_id]].answered = True
    return found


def check_paid(
    story: Story,
    before: Sequence[HistoryEvent],
    after: Sequence[HistoryEvent],
    asked: Paid,
    paid: Paid,
    killer: str,
) -> None:
    """No call is made again whose answer was in the history, and the one under way once more at most."""
    mine, then, now = paid[story.run], model_activities(before), model_activities(after)
    assert set(mine) == {name for name, call in now.items() if call.answered}
    for name, call in then.items():
        if call.answered:
            assert mine[name] == asked[story.run][name], f"activity {name} was asked again"
    again = sum(len(attempts) - 1 for attempts in mine.values())
    under_way = {name for name, call in then.items() if not call.answered}
    # Tries that no kill has cost but a heartbeat that came late on a busy machine: the history counts them.
    late = sum(max(0, call.attempts - 1 - (name in under_way)) for name, call in now.items())
    assert again <= len(under_way) + late and len(under_way) <= 1
    point = story.place.point
    if killer == "worker" and point.name in MODELS:
        attempts = mine[point.step]
        if point.where is Where.ACTIVITY_BEFORE:
            assert 1 not in attempts  # it died before it could ask
        elif point.where is not Where.ACTIVITY_INSIDE:
            assert len(attempts) >= 2  # the answer was there, and nobody had heard


async def check_calls(stories: Sequence[Story], client: Client, seen: set[str]) -> None:
    """Each call has led to one run of its team, and there are no others.

    Args:
        seen: the runs of earlier disasters; those of this one are added.
    """
    wanted: set[str] = set()
    keys: Counter[str] = Counter()
    for story in stories:
        calls = await calls_of(story.handle(client))
        events = await events_of_run(story, client)
        asked = [e for e in events if e.event_type == SCHEDULED]
        assert len(asked) == len(calls), f"{story.run} has a call that has led nowhere"
        wanted |= {call.run.workflow_id for call in calls}
        keys.update(_mcp_keys(events))
    settings = get_settings()
    async with asyncio.timeout(LIMIT.total_seconds()):
        while True:
            runs = await runs_on(settings.finance_queue, settings.finance_namespace)
            runs += await runs_on(settings.it_queue, settings.it_namespace)
            if wanted <= {run.id for run in runs}:
                break
            await asyncio.sleep(0.1)  # lists follow a moment later, without an event
    new = [run for run in runs if run.id not in seen]
    seen |= {run.id for run in new}
    through_mcp = Counter([(await run.memo()).get("idempotency_key") for run in new])
    nexus = through_mcp.pop(None, 0)
    assert nexus == len(wanted) and set(through_mcp) <= set(keys)
    assert not [key for key, runs_of_it in through_mcp.items() if runs_of_it > 1]


def _mcp_keys(events: Sequence[HistoryEvent]) -> Iterator[str]:
    for event in events:
        a = event.activity_task_scheduled_event_attributes
        if a.activity_type.name.endswith(".call-tool"):
            yield decode(a.input.payloads[0])["meta"]["idempotency_key"]
