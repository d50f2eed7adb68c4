"""Attempts at the exercises: a check accepts what is right, however it is written, and says why it refuses.

The cells of the notebooks with pieces exchanged, on a lab of its own. A good programmer writes another loop,
another key, another id, helpers of their own; a learner writes what is nearly right and raises no error.
Left out: that a stub is refused and the solution passes (`test_notebooks`).
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import jupytext
import pytest
from lab_cells import Notebook, dev_server, notebook
from sampled import sampled
from temporalio.client import Client

from workshop_lib.lab.checks import CheckNotMet, nb00, nb01, nb02, nb03, nb05, nb06
from workshop_lib.lab.classroom import spec, start
from workshop_lib.lab.lessons.flat_tools import get_weather
from workshop_lib.lab.registry import stop_all
from workshop_lib.repair.store import open_store
from workshop_lib.settings import PROJECT_ROOT, get_settings

Pieces = list[tuple[str, str]]


class Attempt(NamedTuple):
    """A cell that a learner may write.

    Attributes:
        written: pieces of the solution and what stands there instead, or a whole cell in its place.
        why: what the check says, or parts of it around a " … "; None where it accepts the attempt.
    """

    exercise: str
    name: str
    written: Pieces | str
    why: str | None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dev_server(tmp_path_factory.mktemp("lab")) as address:
        yield address


@pytest.fixture
def nb(server: str) -> Iterator[Notebook]:
    yield notebook()
    stop_all()


def solution(exercise: str) -> str:
    """The cell of an exercise, as a notebook holds it."""
    for source in sorted((PROJECT_ROOT / "solutions").glob("*.py")):
        for cell in jupytext.read(source).cells:
            if cell.metadata.get("exercise") == exercise:
                text: str = cell.source.partition("# --- stub ---")[0]
                return text.replace("# %%workflow", "%%workflow", 1).strip()
    raise AssertionError(f"there is no exercise {exercise}")


def right(exercise: str, name: str, *written: tuple[str, str]) -> Attempt:
    return Attempt(exercise, name, list(written), None)


def wrong(exercise: str, name: str, piece: str, instead: str, why: str) -> Attempt:
    return Attempt(exercise, name, [(piece, instead)], why)


# --- 00 ----------------------------------------------------------------------------------------------

COMPOSE = """%%workflow greeting
from temporalio import activity

@activity.defn
async def compose(name: str) -> str:
    return f"Hello, {name}!"
"""
PAIR = """%%workflow pair
import asyncio
from datetime import timedelta
from temporalio import activity, workflow
BEFORE
@workflow.defn
class GreetPair:
    @workflow.run
    async def run(self, names: list[str]) -> RETURNS:
        return BODY

    async def greet(self, name: str) -> str:
        return await workflow.execute_activity(
            "compose", name, start_to_close_timeout=timedelta(seconds=2), result_type=str
        )
"""


def pair(name: str, body: str, returns: str = "list[str]", before: str = "") -> Attempt:
    """Another workflow that greets two people."""
    cell = PAIR.replace("BEFORE", before).replace("RETURNS", returns).replace("BODY", body)
    return Attempt("two_greetings", name, cell, None)


GREETED = "greetings.append(greeting)"
AGAIN = "greetings.append(greeting + greetings.pop() if greetings else greeting)"
GREETINGS = [
    pair("comprehension", "[await self.greet(name) for name in names]"),
    pair("gather", "await asyncio.gather(*map(self.greet, names))"),
    pair("tuple", "tuple([await self.greet(name) for name in reversed(names)])", "tuple"),
    pair(
        "its own activity",
        "[await self.greet(names[0]), await self.greet(names[1])]",
        "list",
        COMPOSE.partition("activity\n")[2],
    ),
    pair("more words", '[f"{await self.greet(n)} How are you?" for n in names]'),
    wrong(
        *("two_greetings", "names", GREETED, "greetings.append(name)"),
        "without 'Hello, Grace!', which `compose` has returned",
    ),
    wrong(
        *("two_greetings", "one of them", GREETED, "greetings = greeting"),
        "a list of the two greetings",
    ),
    wrong("two_greetings", "one text", GREETED, AGAIN, "the two"),
    wrong("two_greetings", "nothing", GREETED, "pass", "the result []"),
]

# --- 01 ----------------------------------------------------------------------------------------------

WORLD = """
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
ONCE = """
async def turn(text):
    plan = (await complete([Message.user(text)], tools)).message
    return plan.content or " ".join(run_tool(call) for call in plan.tool_calls)
"""
TWICE = """
async def turn(text):
    talk = [Message.user(text)]
    plan = (await complete(talk, tools)).message
    if not plan.tool_calls:
        return plan.content
    talk += [plan, *(Message.tool_result(call, run_tool(call)) for call in plan.tool_calls)]
    return (await complete(talk, tools)).message.content
"""
ROUNDS = "for _ in range(8):"
RESULT = "conversation.append(Message.tool_result(call, run_tool(call)))"
ASKED = "(await complete(conversation, tools)).message"
NOT_ASYNC = "def turn(text: str) -> str:\n    return 'Hello.'\n\n\nasync def other("
ENDLESS = "calls of a model that only ever calls tools"
LOOPS = [
    Attempt("naked_loop", "while", WHILE, None),
    Attempt("naked_loop", "recursion", RECURSION, None),
    Attempt("naked_loop", "tasks", IN_TASKS, None),
    Attempt("naked_loop", "no loop", ONCE, "1 model calls and the reply '1001'"),
    Attempt("naked_loop", "two calls", TWICE, "2 model calls and the reply None"),
    *(
        wrong("naked_loop", *case)
        for case in [
            ("no end", ROUNDS, "while True:", f"40 or more {ENDLESS}"),
            ("too long", ROUNDS, "for _ in range(20):", f"20 {ENDLESS}"),
            ("no wish", "conversation.append(plan)", "pass", "append the model's own message, too"),
            ("no result", RESULT, "run_tool(call)", "append a `Message.tool_result` for each call"),
            ("one result", "in plan.tool_calls:", "in plan.tool_calls[:1]:", "run them all"),
            ("no text", "return plan.content", "return plan", "a reply that is no text"),
            ("no await", ASKED, "complete(conversation, tools).message", "an `await` is missing"),
            ("no tools", ASKED, "(await complete(conversation)).message", "no tools on offer"),
            ("not async", "async def turn(", NOT_ASYNC, "`async def`"),
        ]
    ),
]

TOOL_RUN = "await workflow.execute_activity(execute_tool, tool, **TOOL_OPTIONS)"
HELPER = """
    async def tool(self, request):
        return await workflow.execute_activity(execute_tool, request, **TOOL_OPTIONS)

    @workflow.run"""
DURABLE = [
    right(
        "durable_loop", "by name", (TOOL_RUN, TOOL_RUN.replace("execute_tool", '"execute_tool"'))
    ),
    right("durable_loop", "started", (TOOL_RUN, TOOL_RUN.replace("execute_act", "start_act"))),
    right(
        *("durable_loop", "helper"),
        (TOOL_RUN, "await self.tool(tool)"),
        ("    @workflow.run", HELPER),
    ),
    right("durable_loop", "bounded", ("while True:", "for _ in range(8):")),
    wrong(
        *("durable_loop", "inside", TOOL_RUN, "LOCAL_TOOLS[tool.name].run(tool.arguments)"),
        "0 completed `execute_tool` activities",
    ),
    wrong("durable_loop", "not awaited", TOOL_RUN, TOOL_RUN.removeprefix("await "), "await"),
    wrong(
        *("durable_loop", "another argument", TOOL_RUN, TOOL_RUN.replace(", tool,", ", call,")),
        "failing",
    ),
]

# --- 02 ----------------------------------------------------------------------------------------------

SIGNATURE = "async def calculate(expression: str)"
OFFER = "[activity_as_tool(t, start_to_close_timeout=soon) for t in (get_weather, calculate)]"
GROWN = """[]
        offer.append(activity_as_tool(calculate, start_to_close_timeout=soon))
        offer.append(activity_as_tool(get_weather, start_to_close_timeout=soon))"""
DESCRIBED = '"""Calculate an arithmetic expression, such as 25 + 17."""'
SENT = '{"expression": expression}'
TOOLS = [
    right("tool_added", "a plain function", (SIGNATURE, "def calculate(expression: str)")),
    right("tool_added", "a list that grows", (OFFER, GROWN)),
    wrong("tool_added", "undescribed", DESCRIBED, "", "calculate with no docstring"),
    wrong(
        *("tool_added", "fails", SENT, '{"expr": expression}'), "activity calculate keeps failing"
    ),
    Attempt(
        *("tool_added", "named otherwise"),
        [("calculate(expression: str)", "calculate(expr: str)"), (SENT, '{"expression": expr}')],
        "calculate(expr)",
    ),
]

APPENDED = 'self.items.append({"role": "user", "content": text})'
PARTS = 'self.items += [{"role": "user", "content": [{"type": "input_text", "text": text}]}]'
KEPT = "self.items = said.to_input_list()"
MEMORIES = [
    right(
        *("remembers", "a new list"),
        (APPENDED, 'self.items = [*self.items, {"content": text, "role": "user"}]'),
    ),
    right("remembers", "parts", (APPENDED, PARTS)),
    wrong("remembers", "half", KEPT, "pass", "append the message to `self.items`"),
    wrong(
        *("remembers", "twice", KEPT, "self.items += said.to_input_list()"),
        "messages of the user in the last call, where 3",
    ),
]

# --- 03 ----------------------------------------------------------------------------------------------

RUN_ID = 'f"price-{request.ticker}-{ctx.request_id}"'
STARTED = "return await ctx.start_workflow(workflows.StockPrice"
SHARED, TWO_RUNS = "which another request for the same has, too", "two runs for one request"
HANDLERS = [
    *(
        right("handler", f"id {number}", (RUN_ID, run_id))
        for number, run_id in enumerate(
            [
                "ctx.request_id",
                'f"{request.ticker}/{ctx.request_id}"',
                "str(uuid.uuid5(uuid.NAMESPACE_URL, ctx.request_id))",
                'f"price-{hashlib.sha256(ctx.request_id.encode()).hexdigest()[:16]}"',
                'f"price-{ctx.request_id[:13]}"',
            ]
        )
    ),
    *(
        wrong("handler", name, RUN_ID, run_id, why)
        for name, run_id, why in [
            ("ticker", 'f"price-{request.ticker}"', SHARED),
            ("constant", '"price"', SHARED),
            ("stub", 'lab.new_id(f"price-{request.ticker}")', TWO_RUNS),
            ("half", 'lab.new_id(f"price-{ctx.request_id}")', TWO_RUNS),
            (
                "remembered",
                'self.__dict__.setdefault(ctx.request_id, lab.new_id("x"))',
                TWO_RUNS,
            ),
            ("hash", 'f"price-{hash(ctx.request_id)}"', "another one in each process"),
        ]
    ),
    wrong(
        *("handler", "not awaited", STARTED, STARTED.replace("await ", "")),
        "An `await` is missing",
    ),
    wrong(
        *("handler", "mistyped", STARTED, STARTED.replace("start_workflow", "start_workflows")),
        "has no attribute 'start_workflows', in line 15 of the handler's cell",
    ),
]

# --- 05 ----------------------------------------------------------------------------------------------

KEY = 'f"{step.workflow_run_id}/{step.activity_id}"'
TAKES = "order_badges(quantity: int)"
IMPORT = ("from datetime", "import hashlib\nimport uuid\nfrom datetime")
CALLS = "execute_activity(order_badges, quantity, start"
FROM_WORKFLOW = [
    (TAKES, "order_badges(quantity: int, key: str)"),
    (f"    key = {KEY}\n", ""),
    (CALLS, "execute_activity(order_badges, args=[quantity, KEY], start"),
]
COUNT = """
    steps = 0

    def count(self) -> int:
        self.steps += 1
        return self.steps

    @workflow.run"""
WISH = """
import {module}

{decorator}
class Wish{base}:
    quantity: int
    key: str


@activity.defn"""


def handed_over(decorator: str, base: str, module: str) -> Pieces:
    """The key made by the workflow and handed over in one object."""
    return [
        ("@activity.defn", WISH.format(decorator=decorator, base=base, module=module)),
        (TAKES, "order_badges(wish: Wish)"),
        (f"    key = {KEY}\n", "    quantity, key = wish.quantity, wish.key\n"),
        (CALLS, CALLS.replace("quantity,", "Wish(quantity=quantity, key=str(workflow.uuid4())),")),
    ]


IN_BYTES = "hashlib.md5((step.workflow_run_id + step.activity_id).encode()).digest()"
AS_UUID = 'uuid.uuid5(uuid.NAMESPACE_OID, f"{step.workflow_run_id} {step.activity_id}")'
COUNTED = [("KEY", 'f"{workflow.info().run_id}-{self.count()}"'), ("    @workflow.run", COUNT)]
KEYS = [
    right("once", "tuple", (KEY, "(step.workflow_run_id, step.activity_id)")),
    right("once", "bytes", IMPORT, (KEY, IN_BYTES)),
    right("once", "uuid", IMPORT, (KEY, AS_UUID)),
    right("once", "of the workflow", *FROM_WORKFLOW, ("KEY", "str(workflow.uuid4())")),
    right("once", "counted", *FROM_WORKFLOW, *COUNTED),
    right("once", "dataclass", *handed_over("@dataclasses.dataclass", "", "dataclasses")),
    right("once", "pydantic", *handed_over("", "(pydantic.BaseModel)", "pydantic")),
    *(
        wrong("once", name, KEY, key, why)
        for name, key, why in [
            ("workflow", "step.workflow_id", "226 badge sets from a run that orders twice"),
            ("run", "step.workflow_run_id", "226 badge sets from a run that orders twice"),
            (
                *("step", "step.activity_id"),
                "The first one's key was 1 Hint: the key must name the run, too",
            ),
            (
                *("constant", "step.activity_type, quantity"),
                "the key must name the run, too (`workflow_run_id`)",
            ),
            (
                *("attempt", 'f"{step.workflow_run_id}/{step.attempt}"'),
                "339 badge sets ordered in 3 attempts",
            ),
            ("none", "None", "339 badge sets ordered in 3 attempts; their keys: none"),
        ]
    ),
    Attempt(
        *("once", "shared by its steps", [*FROM_WORKFLOW, ("KEY", "workflow.info().run_id")]),
        "113 badge sets ordered by a run with two such steps … uuid4()",
    ),
]

# --- 06 ----------------------------------------------------------------------------------------------

WAITS = """
        try:
            await workflow.wait_condition(lambda: self.approved, timeout=timedelta(hours=12))
        except TimeoutError:
            return "EXPIRED"
"""
IN_A_BLOCK = """
        try:
            async with asyncio.timeout(12 * 3600):
                await workflow.wait_condition(lambda: self.approved)
        except TimeoutError:
            return "EXPIRED"
"""
RACE = """
        approved = asyncio.create_task(workflow.wait_condition(lambda: self.approved))
        over = asyncio.create_task(workflow.sleep(timedelta(days=0.5)))
        done, _ = await workflow.wait([approved, over], return_when=asyncio.FIRST_COMPLETED)
        if approved not in done:
            return "EXPIRED"
"""
WAIT_FOR = """
        with contextlib.suppress(asyncio.TimeoutError):
            waiting = workflow.wait_condition(lambda: self.approved)
            await asyncio.wait_for(waiting, 43_200)
        if not self.approved:
            return "EXPIRED"
"""
MORE = ("from datetime", "import asyncio\nimport contextlib\nfrom datetime")
CATCHES, WAITED, TWELVE = (
    "except TimeoutError",
    "await workflow.wait_condition(",
    "timedelta(hours=12)",
)
STILL = "still waits after twelve hours"
EXPIRIES = [
    right("expires", "seconds", (TWELVE, "12 * 60 * 60")),
    right("expires", "any error", (CATCHES, "except Exception")),
    right("expires", "asyncio.timeout", MORE, (WAITS, IN_A_BLOCK)),
    right("expires", "race", MORE, (WAITS, RACE)),
    right("expires", "wait_for", MORE, (WAITS, WAIT_FOR)),
    *(
        wrong("expires", name, f"timeout={TWELVE}", f"timeout={limit}", why)
        for name, limit, why in [
            ("a plain number", "12", "a plain number means seconds"),
            ("too late", "timedelta(hours=14)", STILL),
            ("late", "timedelta(hours=12, minutes=50)", STILL),
            ("early", "timedelta(hours=10)", "10:00:0"),
            ("a little early", "timedelta(hours=11, minutes=30)", "11 h 30 min"),
        ]
    ),
    wrong("expires", "not caught", CATCHES, "except ZeroDivisionError", "Python's own"),
    wrong(
        *("expires", "raised", 'return "EXPIRED"', "raise RuntimeError('expired')"),
        "RuntimeError: expired",
    ),
    wrong("expires", "not awaited", WAITED, WAITED.removeprefix("await "), "ended at once"),
    wrong(
        *("expires", "slept", WAITED),
        "await workflow.sleep(12 * 3600) or (lambda *_, **__: None)(",
        "goes on after",
    ),
]

# --- all of them -------------------------------------------------------------------------------------

Check = Callable[[Client, Notebook], Awaitable[object]]
# What is there before the exercise, and what its check is given.
EXERCISES: dict[str, tuple[str, Check]] = {
    "two_greetings": (
        COMPOSE,
        lambda client, nb: nb00.two_greetings(client, nb["GreetPair"], nb["compose"]),
    ),
    "naked_loop": (WORLD, lambda client, nb: nb01.naked_loop(nb["turn"])),
    "durable_loop": ("", lambda client, nb: nb01.durable_loop(client, nb["Agent"])),
    "tool_added": (
        "",
        lambda client, nb: nb02.tool_added(client, nb["Assistant"], [get_weather, nb["calculate"]]),
    ),
    "remembers": ("", lambda client, nb: nb02.remembers(client, nb["Conversation"])),
    "handler": (
        "import hashlib, uuid\nfrom workshop_lib import lab\n"
        "from workshop_lib.teams.finance import contract",
        lambda client, nb: nb03.handler(client, nb["MyFinance"]),
    ),
    "once": ("", lambda client, nb: nb05.once(client, nb["Badges"], nb["order_badges"])),
    "expires": ("", lambda client, nb: nb06.expires(client, nb["Decision"])),
}
SLOW = ("once", "expires")  # some of them always, all with `-m long`
ATTEMPTS = [*GREETINGS, *LOOPS, *DURABLE, *TOOLS, *MEMORIES, *HANDLERS, *KEYS, *EXPIRIES]
CASES = [
    parameter
    for is_right in (True, False)
    for parameter in sampled(
        [(attempt,) for attempt in ATTEMPTS if (attempt.why is None) is is_right],
        4,
        ids=lambda case: f"{case[0].exercise}: {case[0].name}",
        always=lambda case: case[0].exercise not in SLOW,
    )
]


@pytest.mark.parametrize("attempt", CASES)
async def test_an_attempt(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    before, check = EXERCISES[attempt.exercise]
    nb.run(before)
    cell = solution(attempt.exercise)
    if isinstance(attempt.written, str):
        cell = attempt.written
    else:
        for piece, instead in attempt.written:
            assert piece in cell, piece
            cell = cell.replace(piece, instead)
    nb.run(cell)
    if attempt.why is None:
        await check(client, nb)
        return
    with pytest.raises(CheckNotMet) as refused:
        await check(client, nb)
    said = " ".join(str(refused.value).split())
    assert all(part in said for part in attempt.why.split(" … ")), said
    assert "CancelledError" not in said
    if attempt.exercise == "tool_added":
        assert "goes on" not in said


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


@pytest.mark.parametrize("kill_at", ["activity-result@pack#3", " activity-report#3"])
async def test_another_place_after_the_packing(nb: Notebook, kill_at: str) -> None:
    client = await start()
    nb.run(PACKING)
    packer = spec("packer", workflows=[nb["Packing"]], activities=[nb["pack"]])
    await nb00.kill_third(client, packer, nb["Packing"], kill_at)


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
