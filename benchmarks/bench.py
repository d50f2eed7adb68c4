"""The measurements themselves, and the figures they give. Where they run is `ground`'s business."""

import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from statistics import median, quantiles

from floor import Floor
from temporalio.client import Client, WorkflowHandle

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.errors import WorkshopError

STEP_LIMIT = timedelta(seconds=30)  # for any one request
WARM_UP = 8  # turns of each session that are not counted: imports, caches, a full context window
SESSION_TURNS = 100  # then the pair of sessions is replaced by a fresh one
BATCH = 10  # empty activities in one update, for the round trip
EARLY, LATE = 10, 100  # the turns whose bytes of history are compared
# A thing where identity is checked, to the same where it is not.
IDENTITY_TARGETS = {"turn with one tool": 1.10, "Nexus call": 1.25}
SDK_TARGET = 1.6  # a turn of the Agents SDK's loop, to one of the manual loop


@dataclass(frozen=True)
class Times:
    """Milliseconds of many runs of one thing."""

    p50: float
    p95: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Times":
        """From single runs in seconds; at least two."""
        cuts = quantiles(seconds, n=20, method="inclusive")
        return cls(round(median(seconds) * 1e3, 2), round(cuts[-1] * 1e3, 2))


@dataclass(frozen=True)
class RoundTrip:
    """An empty activity, from the workflow's call to the workflow's next line."""

    server: str
    storage: str
    ms: Times


@dataclass(frozen=True)
class Turn:
    """A turn beside its floor. `ratio` is the median over pairs, not the ratio of the medians."""

    storage: str
    tools: int
    activities: int
    pairs: int
    turn_ms: Times
    floor_ms: Times
    ratio: float


@dataclass(frozen=True)
class History:
    """Bytes that one turn with one tool adds to its event history, early and late in a chat."""

    early_turn: int
    early_bytes: int
    late_turn: int
    late_bytes: int

    @property
    def ratio(self) -> float:
        """Late to early: 1 where a turn costs the same however long the chat is."""
        return round(self.late_bytes / self.early_bytes, 3)


@dataclass(frozen=True)
class Beside:
    """One thing beside another, in pairs: a loop beside another loop, an operation beside an empty one.

    Attributes:
        ratio: median over pairs of `ms` to `floor_ms`.
        at_most: what is asked of the ratio, or None.
    """

    what: str
    floor: str
    storage: str
    pairs: int
    ms: Times
    floor_ms: Times
    ratio: float
    at_most: float | None = None

    @classmethod
    def of(
        cls,
        what: str,
        floor: str,
        storage: str,
        pairs: list[tuple[float, float]],
        at_most: float | None = None,
    ) -> "Beside":
        """From pairs of seconds: the thing and its floor."""
        ones, floors = [one for one, _ in pairs], [floor for _, floor in pairs]
        ratio = round(median(one / floor for one, floor in pairs), 3)
        return cls(
            what, floor, storage, len(pairs), Times.of(ones), Times.of(floors), ratio, at_most
        )


class Bench:
    """The measurements on one running server and worker.

    Args:
        client: connected to that server.
        task_queue: where the worker polls.
        person: the same for somebody who has signed in.
        checked_queue: where the worker polls that checks who is asking.
        plain_queue: where the one polls whose manual loop has no policy.
    """

    def __init__(
        self, client: Client, task_queue: str, person: Client, checked_queue: str, plain_queue: str
    ) -> None:
        self._client = client
        self._queue = task_queue
        self._person, self._checked_queue = person, checked_queue
        self._plain_queue = plain_queue

    async def round_trip(self, runs: int, tick: Callable[[], None]) -> Times:
        """Time empty activities from inside a workflow."""
        floor = await self._floor()
        await self._run_empty(floor, BATCH)
        seconds: list[float] = []
        while len(seconds) < runs:
            seconds += await self._run_empty(floor, min(BATCH, runs - len(seconds)))
            tick()
        await floor.terminate(rpc_timeout=STEP_LIMIT)
        return Times.of(seconds)

    async def turn(self, storage: str, tools: int, pairs: int, tick: Callable[[], None]) -> Turn:
        """Time turns with `tools` tool calls (0 or 1) and their floor, in turn."""
        activities = 1 + 2 * tools
        turns: list[float] = []
        floors: list[float] = []
        while len(turns) < pairs:
            chat = self._chat()
            floor = await self._floor()
            for number in range(WARM_UP + min(SESSION_TURNS, pairs - len(turns))):
                turn = await _timed(_ask(chat, number, tools))
                empty = await _timed(self._run_empty(floor, activities))
                if number >= WARM_UP:
                    turns.append(turn)
                    floors.append(empty)
                    tick()
            await chat.end()
            await floor.terminate(rpc_timeout=STEP_LIMIT)
        return Turn(
            storage=storage,
            tools=tools,
            activities=activities,
            pairs=pairs,
            turn_ms=Times.of(turns),
            floor_ms=Times.of(floors),
            ratio=round(median(t / f for t, f in zip(turns, floors, strict=True)), 3),
        )

    async def loops(self, storage: str, pairs: int, tick: Callable[[], None]) -> Beside:
        """Time turns with one tool in the Agents SDK's loop and in the manual one, in turn."""
        times: list[tuple[float, float]] = []
        while len(times) < pairs:
            sdk, manual = self._chat("sdk"), self._chat("manual")
            for number in range(WARM_UP + min(SESSION_TURNS, pairs - len(times))):
                pair = await _timed(_ask(sdk, number, 1)), await _timed(_ask(manual, number, 1))
                if number >= WARM_UP:
                    times.append(pair)
                    tick()
            await sdk.end()
            await manual.end()
        return Beside.of("turn, SDK loop", "the manual loop's", storage, times, SDK_TARGET)

    async def operation(
        self, kind: str, storage: str, pairs: int, tick: Callable[[], None]
    ) -> Beside:
        """Time a Nexus operation of the finance team and an empty one of its kind, in turn."""
        floor = await self._floor()
        times: list[tuple[float, float]] = []
        for number in range(WARM_UP + pairs):
            real, empty = await floor.execute_update(
                Floor.run_operation, kind, rpc_timeout=STEP_LIMIT
            )
            if number >= WARM_UP:
                times.append((real, empty))
                tick()
        await floor.terminate(rpc_timeout=STEP_LIMIT)
        return Beside.of(f"Nexus, {kind}", "an empty operation", storage, times)

    async def identity(
        self, storage: str, pairs: int, tick: Callable[[], None], *, policy: bool = False
    ) -> list[Beside]:
        """Time turns where everybody checks who is asking and where nobody does, in turn: with a local tool,
        and with a call to another team, of which the call itself is looked at, by its history's times.

        Args:
            policy: what the model is sent is decided where who is asking is checked, and nowhere else; left
                out, in both.
        """
        found = []
        what_is_on, without = ("identity and policy", "neither") if policy else ("identity", "off")
        queue = self._plain_queue if policy else self._queue
        for ask, what in (
            (partial(_ask, tools=1), "turn with one tool"),
            (_ask_price, "Nexus call"),
        ):
            times: list[tuple[float, float]] = []
            while len(times) < pairs:
                on = ChatClient(self._person, "manual", task_queue=self._checked_queue)
                off = ChatClient(self._client, "manual", task_queue=queue)
                timed = []
                for number in range(WARM_UP + min(SESSION_TURNS, pairs - len(times))):
                    # Neither is always the one that comes after the other.
                    order = (on, off) if number % 2 else (off, on)
                    spent = {chat: await _timed(ask(chat, number)) for chat in order}
                    timed.append((spent[on], spent[off]))
                    tick()
                if ask is _ask_price:
                    timed = list(zip(await _calls_of(on), await _calls_of(off), strict=True))
                times += timed[WARM_UP:]
                await on.end()
                await off.end()
            most = IDENTITY_TARGETS[what]
            found.append(Beside.of(f"{what}, {what_is_on} on", without, storage, times, most))
        return found

    async def history(self, tick: Callable[[], None]) -> History:
        """The bytes of one turn with one tool, as the server counts them."""
        chat = self._chat()
        sizes = {}
        for number in range(1, LATE + 1):
            await _ask(chat, number, tools=1)
            if number in (EARLY - 1, EARLY, LATE - 1, LATE):
                found = await chat.handle.describe(rpc_timeout=STEP_LIMIT)
                info = found.raw_description.workflow_execution_info
                sizes[number] = info.history_size_bytes
            tick()
        await chat.end()
        return History(
            early_turn=EARLY,
            early_bytes=sizes[EARLY] - sizes[EARLY - 1],
            late_turn=LATE,
            late_bytes=sizes[LATE] - sizes[LATE - 1],
        )

    def _chat(self, loop: str = "manual") -> ChatClient:
        return ChatClient(self._client, loop, task_queue=self._queue)

    async def _floor(self) -> WorkflowHandle[Floor, None]:
        return await self._client.start_workflow(
            Floor.run,
            id=f"floor-{uuid.uuid4().hex[:8]}",
            task_queue=self._queue,
            rpc_timeout=STEP_LIMIT,
        )

    async def _run_empty(self, floor: WorkflowHandle[Floor, None], count: int) -> list[float]:
        return await floor.execute_update(Floor.run_empty, count, rpc_timeout=STEP_LIMIT)


async def _ask(chat: ChatClient, number: int, tools: int) -> None:
    """One turn that needs so many tools; raises where it took other steps than it should."""
    # The same length every time, or the bytes of two turns could not be compared.
    question = f"What is {100 + number} * {200 + number}?" if tools else "Hello there!"
    reply = await chat.send(question, timeout=STEP_LIMIT)
    if len(reply.tool_calls) != tools or reply.model_calls != 1 + tools:
        raise WorkshopError(
            f"A turn took {reply.model_calls} model calls and {len(reply.tool_calls)} tool calls.",
            expected=f"{1 + tools} and {tools}: else turn and floor do not do the same.",
            fix="see what the offline model made of the question, and what the tool returned.",
        )


async def _ask_price(chat: ChatClient, number: int) -> None:
    """One turn that needs the finance team."""
    ticker = ("AAPL", "TSLA")[number % 2]
    reply = await chat.send(f"What is the stock price of {ticker}?", timeout=STEP_LIMIT)
    if reply.tool_calls != ["stock_price"] or reply.failed:
        raise WorkshopError(f"A turn called {reply.tool_calls}: {reply.text}")


async def _calls_of(chat: ChatClient) -> list[float]:
    """Seconds that each call of a session to another team took, as its history has it."""
    begun, spent = {}, []
    for event in (await chat.handle.fetch_history()).events:
        at = event.event_time.ToNanoseconds() / 1e9
        if event.HasField("nexus_operation_scheduled_event_attributes"):
            begun[event.event_id] = at
        elif event.HasField("nexus_operation_completed_event_attributes"):
            ended = event.nexus_operation_completed_event_attributes
            spent.append(at - begun[ended.scheduled_event_id])
    return spent


async def _timed(work: Awaitable[object]) -> float:
    """Seconds until it is done."""
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun
