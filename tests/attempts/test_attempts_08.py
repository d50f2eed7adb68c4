"""Attempts at notebook 08: other windows, other ways to go on as new, other ways to keep what is done."""

from collections.abc import Callable
from typing import Any

import pytest
from attempts_ground import Attempt, assert_judged, cases, right, wrong
from lab_cells import Notebook
from temporalio.workflow import UnfinishedUpdateHandlersWarning

from workshop_lib.lab.checks import CheckNotMet, nb08
from workshop_lib.lab.classroom import start
from workshop_lib.llm.messages import Message

Messages = list[Message]
Window = Callable[[Messages, int], Messages]


def turns_of(messages: Messages) -> list[Messages]:
    turns: list[Messages] = []
    for message in messages:
        if message.role == "user":
            turns.append([])
        turns[-1].append(message)
    return turns


def by_turns(messages: Messages, most: int) -> Messages:
    *earlier, kept = turns_of(messages)
    while earlier and len(earlier[-1]) + len(kept) <= most:
        kept = earlier.pop() + kept
    return kept


def from_the_front(messages: Messages, most: int) -> Messages:
    turns = turns_of(messages)
    while len(turns) > 1 and sum(map(len, turns)) > most:
        del turns[0]
    return [message for turn in turns for message in turn]


def recursive(messages: Messages, most: int) -> Messages:
    next_turn = next((n for n, m in enumerate(messages) if n and m.role == "user"), None)
    if len(messages) <= most or next_turn is None:
        return messages
    return recursive(messages[next_turn:], most)


def as_tuple(messages: Messages, most: int) -> Any:
    return tuple(by_turns(messages, most))


@pytest.mark.parametrize("attempt", [by_turns, from_the_front, recursive, as_tuple])
async def test_another_window(attempt: Window) -> None:
    await nb08.windowed(attempt)


def forgets_tools(messages: Messages, most: int) -> Messages:
    return [message for message in by_turns(messages, most) if message.role != "tool"]


def up_to_the_next_question(messages: Messages, most: int) -> Messages:
    kept = messages[-most:]
    while kept and kept[0].role != "user":
        kept = kept[1:]
    return kept


def changes_it(messages: Messages, most: int) -> Messages:
    while len(messages) > most and len(turns_of(messages)) > 1:
        del messages[0]
        while messages[0].role != "user":
            del messages[0]
    return messages


def nothing_fits(messages: Messages, most: int) -> Messages:
    begins = [n for n, message in enumerate(messages) if message.role == "user"]
    return messages[next(n for n in begins if len(messages) - n <= most) :]


async def later(messages: Messages, most: int) -> Messages:
    return by_turns(messages, most)


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        (lambda messages, most: None, "None, which is no list of messages"),
        (lambda messages, most: ..., "no list of messages"),
        (lambda messages, most: messages, "which is more than fits"),
        (lambda messages, most: messages[-most:], "begins in the middle of a turn"),
        (lambda messages, most: turns_of(messages)[-1], "where one turn more would fit"),
        (lambda messages, most: by_turns(messages, most - 1), "where one turn more would fit"),
        (lambda messages, most: by_turns(messages, most + 1), "which is more than fits"),
        (lambda messages, most: turns_of(messages)[-2:], "no list of messages"),
        (forgets_tools, "not the latest messages"),
        (up_to_the_next_question, "nothing, which are not the latest messages"),
        (up_to_the_next_question, "the last turn is kept whole"),
        (changes_it, "return a slice of it"),
        (later, "`def`, not `async def`"),
        (lambda messages, most: messages[messages.index("user") :], "your code raised ValueError"),
        (nothing_fits, "at most 1: your code raised StopIteration"),
        (nothing_fits, "the last turn is kept whole, though it alone may be longer"),
    ],
)
async def test_a_window_that_is_nearly_right(attempt: Any, why: str) -> None:
    with pytest.raises(CheckNotMet) as refused:
        await nb08.windowed(attempt)
    assert why in str(refused.value)


WAITED = "lambda: self.n > n + 2 and workflow.all_handlers_finished()"
CONTINUED = "workflow.continue_as_new(self.n)"
REFUSED = "if self.n - self.first >= 3:"
TYPE = ', type="Rollover"'
NUMBER, THOUGHT = "number = self.n = self.n + 1", "await workflow.sleep(0.1)"
IN_STEPS = """lambda: self.n >= n + 3)
        await workflow.wait_condition(workflow.all_handlers_finished"""
IN_HANDLER = """await workflow.sleep(0.1)
        if self.n > self.first + 2:
            workflow.continue_as_new(self.n)"""
LASTING = [
    right("lasting", "in two steps", (WAITED, IN_STEPS)),
    right("lasting", "two a run", ("n + 2 and", "n + 1 and"), (">= 3", ">= 2")),
    right("lasting", "named", (CONTINUED, "workflow.continue_as_new(args=[self.n])")),
    right("lasting", "counted", ("self.n > n + 2", "self.n - self.first == 3")),
    *(
        wrong("lasting", *case)
        for case in [
            ("never", WAITED, "lambda: False", "no answer"),
            ("not from its own first", "self.n > n + 2", "self.n >= 3", "count what *this* run"),
            ("no refusal", REFUSED, "if False:", "`check_draw` lets everybody in"),
            ("off by one", REFUSED, "if self.n - self.first > 3:", "a run that answered 4"),
            ("too late", f"{WAITED})", f"{WAITED.replace('+ 2', '+ 3')})", "no answer"),
            ("lost", f" and {WAITED.partition(' and ')[2]}", "", "accepted, and got no number"),
            ("not handed on", CONTINUED, "workflow.continue_as_new(0)", "hand `self.n` on"),
            ("nothing handed on", CONTINUED, "workflow.continue_as_new()", "missing 1 required"),
            ("ends", CONTINUED, "return", "a run that ended"),
            ("another type", TYPE, "", "refused for good"),
            ("in the handler", THOUGHT, IN_HANDLER, "as new from an update handler"),
            ("raises", NUMBER, "number = 1 / 0", "ZeroDivisionError"),
            ("not awaited", "await workflow.wait", "workflow.wait", "before it goes on"),
        ]
    ),
]


@pytest.mark.parametrize("attempt", cases(LASTING, always=1))
async def test_a_run_that_goes_on(
    nb: Notebook, attempt: Attempt, recwarn: pytest.WarningsRecorder
) -> None:
    client = await start()
    await assert_judged(nb, attempt, lambda: nb08.lasting(client, nb["Desk"]))
    assert not [one for one in recwarn if one.category is UnfinishedUpdateHandlersWarning]


CATCH = "(asyncio.CancelledError, ActivityError)"
TELL = """            if not is_cancelled_exception(error):
                raise
"""
RETURN = "        return seen"
IN_THE_LOOP = [
    (
        "        try:\n            for city in cities:\n",
        "        for city in cities:\n            try:\n",
    ),
    (TELL, f"{TELL}            return seen\n"),
]
ONE_BY_ONE = """
        for city in cities:
            try:
                seen.append(await workflow.execute_activity(look, city, **LOOK_OPTIONS))
                await workflow.sleep(0.5)
            except BaseException as error:
                if is_cancelled_exception(error):
                    return [*seen, f"stopped at {city}"]
                raise
"""
GOES_ON = ONE_BY_ONE.replace('return [*seen, f"stopped at {city}"]', "continue")
AROUND = """
        try:
            for city in cities:
                seen.append(await workflow.execute_activity(look, city, **LOOK_OPTIONS))
                await workflow.sleep(0.5)
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
"""
KEPT = [
    right("kept", "base exception", (CATCH, "BaseException")),
    right("kept", "one by one", (AROUND, ONE_BY_ONE)),
    right("kept", "as text", (RETURN, "        return '; '.join(seen)")),
    *(
        wrong("kept", *case)
        for case in [
            (
                "waits",
                TELL,
                f"{TELL}            await workflow.sleep(60)\n",
                "still works, 8 seconds",
            ),
            (
                "nothing",
                AROUND,
                AROUND.replace(CATCH, "ZeroDivisionError"),
                "stopped during a look",
            ),
            ("one shape", CATCH, "ActivityError", "stopped during a rest, the run ended without"),
            ("the other shape", CATCH, "asyncio.CancelledError", "stopped during a look, the run"),
            ("any exception", CATCH, "Exception", "stopped during a rest"),
            ("swallowed", TELL, "            pass\n", "an error is no stop"),
            ("goes on", AROUND, GOES_ON, "went on to Paris"),
            (
                "returns nothing",
                RETURN,
                "        return []",
                "stopped during a look it returned []",
            ),
            ("raises", RETURN, "        return seen[99]", "IndexError"),
        ]
    ),
]


@pytest.mark.parametrize("attempt", cases(KEPT, always=1))
async def test_a_run_that_is_stopped(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    await assert_judged(nb, attempt, lambda: nb08.kept(client, nb["Trip"]))
