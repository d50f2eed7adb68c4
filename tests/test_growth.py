"""What a long conversation costs, read from the histories of all its runs, and drawn."""

from datetime import timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from temporalio.client import Client

from workshop_lib.agents.chat import ChatStart, SessionLimits
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import history_of
from workshop_lib.lab.lessons.growth import (
    Meter,
    TurnCost,
    measure_turns,
    runs_of_session,
    show_meter,
)
from workshop_lib.lab.lessons.stopping import until_begun
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = timedelta(seconds=60)
TURNS, A_RUN = 7, 3


@pytest.mark.parametrize("loop", ["manual", "sdk"])
async def test_every_byte_and_token_belongs_to_one_turn(
    client: Client, worker: WorkerSpec, loop: str
) -> None:
    start = ChatStart(limits=SessionLimits(updates=A_RUN))
    chat = ChatClient(client, loop, task_queue=worker.task_queue, start=start)
    for number in range(1, TURNS + 1):
        await chat.send(f"What is {number} * 9973?", timeout=LIMIT)
    costs = await measure_turns(chat.handle)
    runs = await runs_of_session(chat.handle)
    assert [run.messages for run in runs] == [A_RUN, A_RUN, 1]
    assert [run.status for run in runs] == ["continued as new", "continued as new", "running"]
    events = [
        event
        for run in runs
        for event in (
            await client.get_workflow_handle(chat.workflow_id, run_id=run.run_id).fetch_history()
        ).events
    ]
    assert [cost.turn for cost in costs] == [*range(1, TURNS + 1)]
    assert len(events) == sum(run.events for run in runs)
    assert sum(cost.bytes for cost in costs) == sum(event.ByteSize() for event in events)
    # Of two calls of a model each, with a question that gets longer.
    assert all(later.tokens > sooner.tokens > 0 for sooner, later in pairwise(costs[:3]))
    if loop == "manual":
        last = await history_of(chat.handle)  # the last question, and the summary before it
        calls = [*last.named("plan_next_action"), *last.named("summarise")]
        used = [call.result["usage"] for call in calls]
        assert costs[-1].tokens == sum(sum(one.values()) for one in used)


def a_line(*figures: int) -> list[TurnCost]:
    return [
        TurnCost(turn=n, bytes=figure, tokens=2 * figure) for n, figure in enumerate(figures, 1)
    ]


def test_the_picture_is_told_in_words_too() -> None:
    meter = show_meter(everything=a_line(100, 900, 8_000), our_window=a_line(100, 300, 310))
    page = meter._repr_html_()
    pictures = list(ElementTree.fromstring(page).iter("svg"))
    assert len(pictures) == 2
    for picture, last in zip(pictures, ("8,000", "16,000"), strict=True):
        words = picture.get("aria-label") or ""
        assert f"everything: {last} " not in words and f"{last} in turn 3" in words
        drawn = [line.get("points", "").split() for line in picture.iter("polyline")]
        assert [len(points) for points in drawn] == [3, 3]
        assert drawn[0][-1].split(",")[1] == "0"  # the most is at the top
        assert {line.get("stroke-dasharray") for line in picture.iter("polyline")} == {"", "6 4"}
    assert "our window" in page and "8,000" in repr(meter) and repr(meter).count("\n") == 3


@pytest.mark.parametrize("costs", [[], a_line(0), a_line(5)], ids=["none", "nothing", "one turn"])
def test_a_line_that_is_hardly_one(costs: list[TurnCost]) -> None:
    meter = Meter({"<b>bad</b>": costs})
    assert "<b>bad" not in meter._repr_html_()
    ElementTree.fromstring(meter._repr_html_())
    assert repr(meter)


async def test_a_step_that_does_not_begin_gets_a_sentence(client: Client, spec: WorkerSpec) -> None:
    chat = ChatClient(client, task_queue=spec.task_queue)  # nobody serves it
    await chat.begin()
    with pytest.raises(WorkshopError, match="plan_next_action has not begun within 1 s"):
        await until_begun(chat.handle, "plan_next_action", timeout=1)
