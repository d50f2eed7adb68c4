"""What the agents of the crash lattice do, told as whoever uses them sees it: nobody here knows of a crash.

Each story is what a recorded run (`tests/histories`) has gone through, with the same messages and decisions,
and says at its end what must have come of it. Left out: where something dies meanwhile, and what may be paid
for it (`test_crash_lattice`).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from lab_environment import fresh
from lattice_points import Place, recorded_events
from record_histories import CONVERSATION
from repair_ground import stock_of
from standing_worker import shop
from temporalio.client import Client, WorkflowHandle

from workshop_lib.agents.chat import Reply
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import decode
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.proactive_client import ProactiveClient
from workshop_lib.repair.states import ProactiveOutcome, RepairOutcome, RepairStatus, State

LIMIT = timedelta(
    seconds=240
)  # for what is waited for; a busy machine is slow, and none waits for ever
# A local tool, both teams at once, an error of a team: the messages after these bring nothing new.
TURNS = 3
DAY = date(2025, 7, 1)
STOCK = {"STP-ORG-001": 247, "CRT-FD-101": 145}
T = TypeVar("T")


@dataclass
class Story:
    """One run of an agent.

    Attributes:
        agent: "manual", "sdk", "mcp", "repair" or "proactive".
        place: the one at which the run will be disturbed.
        abreast: waited for before the step that leads there, so that all come to their places together.
        run: its workflow id.
        stands_as: what the id of the run begins with that comes to the place; a team's is not the agent's.
    """

    first_turn: ClassVar[int] = 0

    agent: str
    place: Place
    abreast: asyncio.Barrier
    run: str = field(default_factory=lambda: fresh("lattice"))

    def __post_init__(self) -> None:
        """Take the names that the run goes by."""

    @property
    def stands_as(self) -> str:
        return self.run

    def handle(self, client: Client) -> WorkflowHandle[Any, Any]:
        """The agent's run."""
        return client.get_workflow_handle(self.run)

    async def come_abreast(self, turn: int) -> None:
        """Wait for the others before the turn that leads to the place."""
        if turn == max(self.place.turn, self.first_turn):
            await self.abreast.wait()

    async def live(self, client: Client, queue: str) -> None:
        """The story. Raises where something came of it that should not have."""
        raise NotImplementedError

    def check_effects(self, folder: Path) -> None:
        """What has changed in the world has changed once."""


def not_repeated(place: Place) -> bool:
    """Whether no earlier turn of a recorded conversation has the same; the last task has its end."""
    return place.turn <= TURNS or place.point.step.startswith("signal")


class Chat(Story):
    """The beginning of the recorded conversation, and its end."""

    first_turn = 1

    def __post_init__(self) -> None:
        self.session = self.run
        self.run = f"chat-{self.agent}-{self.session}"

    async def live(self, client: Client, queue: str) -> None:
        chat = ChatClient(client, self.agent, self.session, task_queue=queue)
        for turn, expected in enumerate(recorded_replies(self.agent)[:TURNS], 1):
            await self.come_abreast(turn)
            reply = await chat.send(CONVERSATION[turn - 1], timeout=LIMIT)
            # Recorded when the offline model still quoted a tool's own "Error:" behind its words.
            text = expected.text.replace("error: Error: ", "error: ")
            expected = expected.model_copy(update={"tokens": reply.tokens, "text": text})
            assert reply == expected, f"{reply!r} in place of {expected!r}"
        lines = await chat.transcript()
        assert [line.turn for line in lines] == [n for n in range(1, TURNS + 1) for _ in "ab"]
        await self.come_abreast(len(CONVERSATION))
        await chat.end()
        async with asyncio.timeout(LIMIT.total_seconds()):
            assert await chat.handle.result() == TURNS


class Call(Chat):
    """A question to the finance team, whose worker is the one that is disturbed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # Each ticker is asked for once in a crowd: the team's runs are called after them.
        self.ticker = next(_tickers)

    @property
    def stands_as(self) -> str:
        return (
            self.run
            if self.place.point.where.startswith("operation")
            else f"stock-price-{self.ticker}-"
        )

    async def live(self, client: Client, queue: str) -> None:
        chat = ChatClient(client, self.agent, self.session, task_queue=queue)
        await chat.send("Hello", timeout=LIMIT)  # from here on the session knows its teams
        await self.abreast.wait()
        reply = await chat.send(f"What's the stock price of {self.ticker}?", timeout=LIMIT)
        assert f"Stock price for {self.ticker}: " in reply.text, reply
        assert (reply.turn, reply.model_calls, reply.tool_calls) == (2, 2, ["stock_price"])
        await chat.end()
        async with asyncio.timeout(LIMIT.total_seconds()):
            assert await chat.handle.result() == 2


def _every_ticker() -> Iterator[str]:
    prices = json.loads((Path(__file__).parent.parent / "data" / "finance.json").read_text("utf-8"))
    while True:
        yield from prices["prices"]


_tickers = _every_ticker()


class Repair(Story):
    """A repair of which a part is approved."""

    async def live(self, client: Client, queue: str) -> None:
        await self.come_abreast(0)
        repair = await RepairClient.start(client, workflow_id=self.run, task_queue=queue)
        await patiently(lambda: repair.wait_for(State.PENDING_APPROVAL, timeout=LIMIT))
        plan = await patiently(repair.plan)
        assert plan
        await self.come_abreast(1)
        wanted = [proposal.proposal_id for proposal in plan.proposals][:3]
        await repair.approve(plan.digest, decided_by="ada", proposals=wanted)
        outcome = await repair.outcome(LIMIT)
        expected = RepairOutcome.model_validate(recorded_result("repair"))
        assert (outcome.state, outcome.declined) == (expected.state, expected.declined)
        assert _done(outcome) == _done(expected)
        self.done = _done(outcome)

    def check_effects(self, folder: Path) -> None:
        assert _in_ledger(folder, self.run) == sorted(self.done)


class Proactive(Story):
    """An agent whose first plan is rejected and whose second one is approved."""

    async def live(self, client: Client, queue: str) -> None:
        await self.come_abreast(0)
        agent = await ProactiveClient.start_agent(
            client, today=DAY, workflow_id=self.run, task_queue=queue
        )
        await self._reaches(agent, 1, State.PENDING_APPROVAL)
        digest = await _digest(agent)
        await self.come_abreast(1)
        await agent.reject(digest, decided_by="ada", comment="not today")
        await self._reaches(agent, 1, State.WAITING)
        await agent.stop_waiting()
        await self._reaches(agent, 2, State.PENDING_APPROVAL)
        digest = await _digest(agent)
        await self.come_abreast(2)
        await agent.approve(digest, decided_by="ada")
        await self._reaches(agent, 2, State.WAITING)
        await agent.request_exit()
        outcome = await agent.stopped(LIMIT)
        expected = ProactiveOutcome.model_validate(recorded_result("proactive"))
        assert [(c.state, c.done) for c in outcome.cycles] == [
            (c.state, c.done) for c in expected.cycles
        ]
        self.done = sum(cycle.done for cycle in outcome.cycles)

    async def _reaches(self, agent: ProactiveClient, cycle: int, state: State) -> None:
        def there(status: RepairStatus) -> bool:
            return (status.cycle, status.state) == (cycle, state)

        assert there(await patiently(lambda: agent.wait_until(there, LIMIT)))

    def check_effects(self, folder: Path) -> None:
        assert len(_in_ledger(folder, self.run)) == self.done


def _done(outcome: RepairOutcome) -> list[tuple[str, str]]:
    return sorted((result.tool, result.order_id) for result in outcome.results if result.done)


async def _digest(agent: RepairClient) -> str:
    plan = await patiently(agent.plan)
    assert plan
    return plan.digest


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again where nobody has answered: who stands still, or has just died, answers no query."""
    async with asyncio.timeout(LIMIT.total_seconds()):
        while True:
            try:
                return await ask()
            except WorkshopError as error:
                if not error.what.startswith("No worker"):
                    raise


def _in_ledger(folder: Path, run: str) -> list[tuple[str, str]]:
    """What was repaired, with every row that there is; stock has grown by just that."""
    store = shop(folder, run)
    bought = dict.fromkeys(STOCK, 0)
    for row in (rows := store.ledger()):
        if row.tool == "order_inventory":
            bought[row.item_id] += json.loads(row.arguments)["quantity"]
    assert {item: stock_of(store, item) - STOCK[item] for item in STOCK} == bought
    return sorted((row.tool, row.order_id) for row in rows)


def recorded_replies(name: str) -> list[Reply]:
    """What was answered in a recorded conversation."""
    found = []
    for event in recorded_events(name):
        outcome = event.workflow_execution_update_completed_event_attributes.outcome
        found += [Reply.model_validate(decode(value)) for value in outcome.success.payloads]
    return found


def recorded_result(name: str) -> Any:
    """What a recorded run has returned, as plain JSON."""
    done = recorded_events(name)[-1].workflow_execution_completed_event_attributes
    return decode(done.result.payloads[0])


STORIES: dict[str, type[Story]] = {
    **{"manual": Chat, "sdk": Chat, "mcp": Chat},
    **{"repair": Repair, "proactive": Proactive},
}
