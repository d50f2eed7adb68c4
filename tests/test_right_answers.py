"""Answers that are right and not the one that is shown: each check accepts them.

A good programmer writes another loop, another key, another id, helpers of their own. Here are the cells of
the notebooks, written otherwise, on a lab of its own. Wrong ones are in `test_wrong_attempts`.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from lab_cells import Notebook, dev_server, notebook
from temporalio.client import Client
from test_wrong_attempts import solution

from workshop_lib.lab.checks import nb00, nb01, nb02, nb03, nb05, nb06
from workshop_lib.lab.classroom import spec, start
from workshop_lib.lab.lessons.flat_tools import get_weather
from workshop_lib.lab.workers.threads import stop_all
from workshop_lib.repair.store import open_store
from workshop_lib.settings import get_settings
from workshop_lib.temporal.connect import connect


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dev_server(tmp_path_factory.mktemp("lab")) as address:
        yield address


@pytest.fixture
def nb(server: str) -> Iterator[Notebook]:
    yield notebook()
    stop_all()


def other(exercise: str, *exchanged: tuple[str, str]) -> str:
    """The cell of a solution with pieces of it written otherwise."""
    cell = solution(exercise)
    for shown, instead in exchanged:
        assert shown in cell, shown
        cell = cell.replace(shown, instead)
    return cell


# 00

COMPOSE = """
@activity.defn
async def compose(name: str) -> str:
    return f"Good morning, {name}."
"""
PAIR = """
%%workflow pair
import asyncio
from datetime import timedelta
from temporalio import activity, workflow
{before}
@workflow.defn
class GreetPair:
    @workflow.run
    async def run(self, names: list[str]) -> {returns}:
        {body}

    async def greet(self, name: str) -> str:
        return await workflow.execute_activity(
            "compose", name, start_to_close_timeout=timedelta(seconds=2), result_type=str
        )
"""


@pytest.mark.parametrize(
    ("body", "before", "returns"),
    [
        ("return [await self.greet(name) for name in names]", "", "list[str]"),
        ("return await asyncio.gather(*map(self.greet, names))", "", "list[str]"),
        ("return tuple([await self.greet(name) for name in reversed(names)])", "", "tuple"),
        ("return [await self.greet(names[0]), await self.greet(names[1])]", COMPOSE, "list"),
        ('return [f"{await self.greet(n)} How are you?" for n in names]', "", "list[str]"),
    ],
    ids=["comprehension", "gather", "tuple", "its own activity", "more words"],
)
async def test_two_people_greeted(nb: Notebook, body: str, before: str, returns: str) -> None:
    nb.run(f"%%workflow greeting\nfrom temporalio import activity\n{COMPOSE}")
    nb.run(PAIR.format(before=before, body=body, returns=returns).strip())
    await nb00.two_greetings(await connect(), nb["GreetPair"], nb["compose"])


@pytest.mark.parametrize("kill_at", ["activity-result@pack#3", " activity-report#3"])
async def test_another_place_after_the_packing(nb: Notebook, kill_at: str) -> None:
    nb.run(PACKING)
    packer = spec("packer", workflows=[nb["Packing"]], activities=[nb["pack"]])
    await nb00.kill_third(await connect(), packer, nb["Packing"], kill_at)


PACKING = """%%workflow packing
from datetime import timedelta
from temporalio import activity, workflow

@activity.defn
async def pack(box: int) -> str:
    return f"box {box} packed"

@workflow.defn
class Packing:
    @workflow.run
    async def run(self) -> list[str]:
        limit = timedelta(seconds=2)
        return [
            await workflow.execute_activity(pack, box, start_to_close_timeout=limit)
            for box in (1, 2, 3)
        ]
"""


# 01

LOOP = """
import asyncio
from workshop_lib.agents.local_tools import LOCAL_TOOLS
from workshop_lib.lab.lessons.naked import run_tool
from workshop_lib.llm import gateway
from workshop_lib.llm.gateway import complete
from workshop_lib.llm.messages import Message
tools = [tool.spec for tool in LOCAL_TOOLS.values()]
"""
WHILE = """
async def turn(text):
    talk, rounds = [Message.user(text)], 0
    while (rounds := rounds + 1) <= 8:
        plan = (await complete(messages=talk, tools=tools)).message
        talk += [plan, *(Message.tool_result(c, run_tool(c)) for c in plan.tool_calls)]
        if not plan.tool_calls:
            return plan.content
    raise RuntimeError("no end")
"""
RECURSION = """
async def go_round(talk, left=8):
    plan = (await gateway.complete(talk, tools)).message
    if not plan.tool_calls or not left:
        return plan.content
    results = [Message.tool_result(call, run_tool(call)) for call in plan.tool_calls]
    return await go_round([*talk, plan, *results], left - 1)

async def turn(text):
    return await go_round([Message.system("Be brief."), Message.user(text)])
"""
IN_TASKS = """
async def run(call):
    return Message.tool_result(call, await asyncio.to_thread(run_tool, call))

class Talk(list):
    async def ask(self):
        async with asyncio.timeout(20):
            self.append((await asyncio.create_task(complete(self, tools))).message)
        return self[-1]

async def turn(text):
    talk = Talk([Message.user(text)])
    for _ in range(8):
        if calls := (await talk.ask()).tool_calls:
            talk.extend(await asyncio.gather(*map(run, calls)))
        else:
            break
    return talk[-1].content
"""


@pytest.mark.parametrize("turn", [WHILE, RECURSION, IN_TASKS], ids=["while", "recursion", "tasks"])
async def test_another_loop(nb: Notebook, turn: str) -> None:
    nb.run(LOOP + turn)
    await nb01.naked_loop(nb["turn"])


SAID = "said = await workflow.execute_activity(execute_tool, tool, **TOOL_OPTIONS)"


@pytest.mark.parametrize(
    "exchanged",
    [
        [(SAID, SAID.replace("(execute_tool", '("execute_tool"'))],
        [(SAID, SAID.replace("execute_activity", "start_activity"))],
        [
            (SAID, "said = await self.tool(tool)"),
            (
                "    @workflow.run",
                """
    async def tool(self, request):
        return await workflow.execute_activity(execute_tool, request, **TOOL_OPTIONS)

    @workflow.run""",
            ),
        ],
        [("while True:", "for _ in range(8):")],
    ],
    ids=["by name", "started", "helper", "bounded"],
)
async def test_another_durable_loop(nb: Notebook, exchanged: list[tuple[str, str]]) -> None:
    nb.run(other("durable_loop", *exchanged))
    await nb01.durable_loop(await connect(), nb["Agent"])


# 02

SIGNATURE = "async def calculate(expression: str)"
RUN = "self.items.append({"


@pytest.mark.parametrize(
    "exchanged",
    [
        [(SIGNATURE, "def calculate(expression: str)")],
        [
            (
                "[activity_as_tool(t, start_to_close_timeout=soon) for t in (get_weather, calculate)]",
                """[]
        offer.append(activity_as_tool(calculate, start_to_close_timeout=soon))
        offer.append(activity_as_tool(get_weather, start_to_close_timeout=soon))""",
            )
        ],
    ],
    ids=["a plain function", "a list that grows"],
)
async def test_another_tool(nb: Notebook, exchanged: list[tuple[str, str]]) -> None:
    nb.run(other("tool_added", *exchanged))
    activities = [get_weather, nb["calculate"]]
    await nb02.tool_added(await connect(), nb["Assistant"], activities)


APPENDED = 'self.items.append({"role": "user", "content": text})'


@pytest.mark.parametrize(
    "appended",
    [
        'self.items = [*self.items, {"content": text, "role": "user"}]',
        'self.items += [{"role": "user", "content": [{"type": "input_text", "text": text}]}]',
    ],
    ids=["a new list", "parts"],
)
async def test_another_memory(nb: Notebook, appended: str) -> None:
    nb.run(other("remembers", (APPENDED, appended)))
    await nb02.remembers(await connect(), nb["Conversation"])


# 03


@pytest.mark.parametrize(
    "run_id",
    [
        "ctx.request_id",
        'f"{request.ticker}/{ctx.request_id}"',
        "str(uuid.uuid5(uuid.NAMESPACE_URL, ctx.request_id))",
        'f"price-{hashlib.sha256(ctx.request_id.encode()).hexdigest()[:16]}"',
        'f"price-{ctx.request_id[:13]}"',
    ],
)
async def test_an_id_that_is_made_of_the_requests(nb: Notebook, run_id: str) -> None:
    client: Client = await start()
    nb.run("import hashlib, uuid\nfrom workshop_lib.teams.finance import contract")
    nb.run(other("handler", ('f"price-{request.ticker}-{ctx.request_id}"', run_id)))
    await nb03.handler(client, nb["MyFinance"])


# 05

KEY = 'f"{step.workflow_run_id}/{step.activity_id}"'
TAKES = "order_badges(quantity: int)"
IMPORT = ("from datetime", "import hashlib\nimport uuid\nfrom datetime")
CALLS = "execute_activity(order_badges, quantity, start"
FROM_WORKFLOW = [
    (TAKES, "order_badges(quantity: int, key: str)"),
    (f"    key = {KEY}\n", ""),
    (CALLS, "execute_activity(order_badges, args=[quantity, KEY], start"),
]
WISH = """
import {module}

{decorator}
class Wish{base}:
    quantity: int
    key: str


@activity.defn"""


def handed_over(decorator: str, base: str, module: str) -> list[tuple[str, str]]:
    """The key made by the workflow and handed over in one object."""
    return [
        ("@activity.defn", WISH.format(decorator=decorator, base=base, module=module)),
        (TAKES, "order_badges(wish: Wish)"),
        (f"    key = {KEY}\n", "    quantity, key = wish.quantity, wish.key\n"),
        (CALLS, CALLS.replace("quantity,", "Wish(quantity=quantity, key=str(workflow.uuid4())),")),
    ]


@pytest.mark.parametrize(
    "exchanged",
    [
        [(KEY, "(step.workflow_run_id, step.activity_id)")],
        [IMPORT, (KEY, "hashlib.md5((step.workflow_run_id + step.activity_id).encode()).digest()")],
        [
            IMPORT,
            (KEY, 'uuid.uuid5(uuid.NAMESPACE_OID, f"{step.workflow_run_id} {step.activity_id}")'),
        ],
        [*FROM_WORKFLOW, ("KEY", "str(workflow.uuid4())")],
        [
            *FROM_WORKFLOW,
            ("KEY", 'f"{workflow.info().run_id}-{self.count()}"'),
            (
                "    @workflow.run",
                """
    steps = 0

    def count(self) -> int:
        self.steps += 1
        return self.steps

    @workflow.run""",
            ),
        ],
        handed_over("@dataclasses.dataclass", "", "dataclasses"),
        handed_over("", "(pydantic.BaseModel)", "pydantic"),
    ],
    ids=["tuple", "bytes", "uuid", "workflow", "counted", "dataclass", "pydantic"],
)
async def test_another_key(nb: Notebook, exchanged: list[tuple[str, str]]) -> None:
    nb.run(other("once", *exchanged))
    await nb05.once(await connect(), nb["Badges"], nb["order_badges"])


class Rules:
    """Rules as objects, tried one after the other."""

    def __call__(self, proposal: Any, shop: Any) -> str | None:
        wish = proposal.arguments
        return next((said for said, broken in self.all(wish, shop) if broken), None)

    def all(self, wish: Any, shop: Any) -> Iterator[tuple[str, bool]]:
        from workshop_lib.repair.plan_rules import shortage

        order, item = shop.order(wish.order_id), shop.item(wish.item_id)
        yield "unknown", not (order and item)
        yield "not on it", wish.item_id not in {line.item_id for line in order.items}
        room = item.max_stock_level - item.current_stock
        missing = shortage(order, wish.item_id, shop)
        yield "too few or too many", not missing <= wish.quantity <= room
        yield "restricted", item.needs_approval


async def test_other_rules(server: str) -> None:
    store = open_store()
    store.reset()
    await nb05.validator(Rules(), store.snapshot(get_settings().today))


# 06

WAITS = """
        try:
            await workflow.wait_condition(lambda: self.approved, timeout=timedelta(hours=12))
        except TimeoutError:
            return "EXPIRED"
"""


@pytest.mark.parametrize(
    "waits",
    [
        WAITS.replace("timedelta(hours=12)", "12 * 60 * 60"),
        WAITS.replace("except TimeoutError", "except Exception"),
        """
        try:
            async with asyncio.timeout(12 * 3600):
                await workflow.wait_condition(lambda: self.approved)
        except TimeoutError:
            return "EXPIRED"
""",
        """
        approved = asyncio.create_task(workflow.wait_condition(lambda: self.approved))
        over = asyncio.create_task(workflow.sleep(timedelta(days=0.5)))
        done, _ = await workflow.wait([approved, over], return_when=asyncio.FIRST_COMPLETED)
        if approved not in done:
            return "EXPIRED"
""",
        """
        with contextlib.suppress(asyncio.TimeoutError):
            waiting = workflow.wait_condition(lambda: self.approved)
            await asyncio.wait_for(waiting, 43_200)
        if not self.approved:
            return "EXPIRED"
""",
    ],
    ids=["seconds", "any error", "asyncio.timeout", "race", "wait_for"],
)
async def test_another_wait(nb: Notebook, waits: str) -> None:
    cell = solution("expires").replace(
        "from datetime", "import asyncio\nimport contextlib\nfrom datetime"
    )
    assert WAITS in cell
    nb.run(cell.replace(WAITS, waits))
    await nb06.expires(await connect(), nb["Decision"])


def by_loop(plan: Any) -> bool:
    sure = 0
    for proposal in plan.proposals:
        sure += proposal.confidence > 0.95
    return 0 < sure == len(plan.proposals)


@pytest.mark.parametrize(
    "decide",
    [
        by_loop,
        lambda plan: min((p.confidence for p in plan.proposals), default=0) > 0.95,
        lambda plan: plan.proposals and all(p.confidence > 0.95 for p in plan.proposals),
        lambda plan: (
            len(plan.proposals) > 0 and not [p for p in plan.proposals if p.confidence <= 0.95]
        ),
    ],
    ids=["loop", "min", "list", "none below"],
)
async def test_another_line(server: str, decide: Any) -> None:
    await nb06.acts_alone(decide)
