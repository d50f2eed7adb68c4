"""Attempts that are nearly right, as learners make them: each check refuses them and says why.

That a stub is refused and a solution passes is shown for every exercise elsewhere. Here are wrong solutions
that run without an error, on a lab of its own: the cells of the notebooks, with one thing wrong in each.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jupytext
import pytest
from lab_cells import Notebook, dev_server, notebook
from temporalio.client import Client

from workshop_lib.lab.checks import CheckNotMet, nb00, nb01, nb02, nb03, nb04, nb05, nb06
from workshop_lib.lab.classroom import start
from workshop_lib.lab.history import ACTIVITY, COMPLETED, RUNNING, SIGNAL, History, Step
from workshop_lib.lab.lessons import comparison
from workshop_lib.lab.lessons.flat_tools import get_weather
from workshop_lib.lab.workers.threads import stop_all
from workshop_lib.mcp.wire import SERVER_DOWN
from workshop_lib.settings import PROJECT_ROOT
from workshop_lib.temporal.connect import connect

STUB = "# --- stub ---"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dev_server(tmp_path_factory.mktemp("lab")) as address:
        yield address


@pytest.fixture
def nb(server: str) -> Iterator[Notebook]:
    yield notebook()
    stop_all()


@pytest.fixture
def attempt(nb: Notebook) -> Callable[..., Notebook]:
    """Runs an exercise's solution with pieces of it exchanged, one after the other."""

    def run(exercise: str, **exchanged: str) -> Notebook:
        cell = solution(exercise)
        for before, after in exchanged.items():
            assert PIECES[before] in cell, before
            cell = cell.replace(PIECES[before], after)
        nb.run(cell)
        return nb

    return run


PIECES = {
    "greeted": "greetings.append(greeting)",
    "rounds": "for _ in range(8):",
    "wish": "conversation.append(plan)",
    "kept_result": "conversation.append(Message.tool_result(call, run_tool(call)))",
    "every": "for call in plan.tool_calls:",
    "answered": "return plan.content",
    "asked": "(await complete(conversation, tools)).message",
    "async": "async def turn(",
    "tool_run": "await workflow.execute_activity(execute_tool, tool, **TOOL_OPTIONS)",
    "key": 'f"{step.workflow_run_id}/{step.activity_id}"',
    "takes": "order_badges(quantity: int)",
    "calls": "(order_badges, quantity, ",
    "kept": "self.items = said.to_input_list()",
    "run_id": 'f"price-{request.ticker}-{ctx.request_id}"',
    "started": "return await ctx.start_workflow(workflows.StockPrice",
    "argument": '{"expression": expression}',
    "signature": "calculate(expression: str)",
    "limit": "timeout=timedelta(hours=12)",
    "caught": "except TimeoutError:",
    "expired": 'return "EXPIRED"',
    "waits": "await workflow.wait_condition(",
    "described": '"""Calculate an arithmetic expression, such as 25 + 17."""',
}


def solution(exercise: str) -> str:
    """The cell of an exercise, as a notebook holds it."""
    for source in sorted((PROJECT_ROOT / "solutions").glob("*.py")):
        for cell in jupytext.read(source).cells:
            if cell.metadata.get("exercise") == exercise:
                text: str = cell.source.partition(STUB)[0]
                return text.replace("# %%workflow", "%%workflow", 1).strip()
    raise AssertionError(f"there is no exercise {exercise}")


async def refused(check: Any, *made: Any) -> str:
    """What a check says of an attempt that it does not accept."""
    with pytest.raises(CheckNotMet) as said:
        await check(*made)
    return str(said.value)


COMPOSE = """%%workflow greeting
from temporalio import activity

@activity.defn
async def compose(name: str) -> str:
    return f"Hello, {name}!"
"""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("greetings.append(name)", "without 'Hello, Grace!', which `compose` has returned"),
        ("greetings = greeting", "a list of the two greetings"),
        ("greetings.append(greeting + greetings.pop() if greetings else greeting)", "the two"),
        ("pass", "the result []"),
    ],
    ids=["names", "one of them", "one text", "nothing"],
)
async def test_greetings_that_are_not_those_of_the_activities(
    attempt: Callable[..., Notebook], nb: Notebook, line: str, why: str
) -> None:
    nb.run(COMPOSE)
    attempt("two_greetings", greeted=line)
    assert why in await refused(nb00.two_greetings, await connect(), nb["GreetPair"], nb["compose"])


WORLD = """
from workshop_lib.agents.local_tools import LOCAL_TOOLS
from workshop_lib.lab.lessons.naked import run_tool
from workshop_lib.llm.gateway import complete
from workshop_lib.llm.messages import Message
tools = [tool.spec for tool in LOCAL_TOOLS.values()]
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


@pytest.mark.parametrize(
    ("exchanged", "why"),
    [
        (ONCE, "1 model calls and the reply '1001'"),
        (TWICE, "2 model calls and the reply None"),
        ({"rounds": "while True:"}, "40 or more calls of a model that only ever calls tools"),
        ({"rounds": "for _ in range(20):"}, "20 calls of a model that only ever calls tools"),
        ({"wish": "pass"}, "append the model's own message, too"),
        ({"kept_result": "run_tool(call)"}, "append a `Message.tool_result` for each call"),
        ({"every": "for call in plan.tool_calls[:1]:"}, "run them all"),
        ({"answered": "return plan"}, "a reply that is no text"),
        ({"asked": "complete(conversation, tools).message"}, "An `await` is missing".lower()),
        ({"asked": "(await complete(conversation)).message"}, "no tools on offer"),
        (
            {"async": "def turn(text: str) -> str:\n    return 'Hello.'\n\n\nasync def other("},
            "`async def`",
        ),
    ],
    ids=[
        "no loop",
        "two calls",
        "no end",
        "too long",
        "no wish",
        "no result",
        "one result",
        "no text",
        "no await",
        "no tools",
        "not async",
    ],
)
async def test_a_loop_that_is_none(
    attempt: Callable[..., Notebook], nb: Notebook, exchanged: str | dict[str, str], why: str
) -> None:
    nb.run(WORLD)
    if isinstance(exchanged, str):
        nb.run(exchanged)
    else:
        attempt("naked_loop", **exchanged)
    assert why in await refused(nb01.naked_loop, nb["turn"])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("LOCAL_TOOLS[tool.name].run(tool.arguments)", "0 completed `execute_tool` activities"),
        ("workflow.execute_activity(execute_tool, tool, **TOOL_OPTIONS)", "await"),
        ("await workflow.execute_activity(execute_tool, call, **TOOL_OPTIONS)", "failing"),
    ],
    ids=["inside", "not awaited", "another argument"],
)
async def test_a_tool_that_is_no_activity(
    attempt: Callable[..., Notebook], line: str, why: str
) -> None:
    nb = attempt("durable_loop", tool_run=line)
    assert why in await refused(nb01.durable_loop, await connect(), nb["Agent"])


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("step.workflow_id", "226 badge sets from a run that orders twice"),
        ("step.workflow_run_id", "226 badge sets from a run that orders twice"),
        ("step.activity_id", "The first one's key was 1 Hint: the key must name the run, too"),
        ("step.activity_type, quantity", "the key must name the run, too (`workflow_run_id`)"),
        ('f"{step.workflow_run_id}/{step.attempt}"', "339 badge sets ordered in 3 attempts"),
        ("None", "339 badge sets ordered in 3 attempts; their keys: none"),
    ],
    ids=["workflow", "run", "step", "constant", "attempt", "none"],
)
async def test_a_key_that_others_share_or_that_changes(
    attempt: Callable[..., Notebook], key: str, why: str
) -> None:
    nb = attempt("once", key=key)
    said = await refused(nb05.once, await connect(), nb["Badges"], nb["order_badges"])
    assert why in " ".join(said.split())


async def test_a_key_of_the_workflows_that_its_steps_share(
    attempt: Callable[..., Notebook],
) -> None:
    nb = attempt(
        "once",
        takes="order_badges(quantity: int, key: str)",
        key="key",
        calls="(order_badges, args=[quantity, workflow.info().run_id], ",
    )
    said = await refused(nb05.once, await connect(), nb["Badges"], nb["order_badges"])
    assert "113 badge sets ordered by a run with two such steps" in said and "uuid4()" in said


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        ("pass", "append the message to `self.items`"),
        ("self.items += said.to_input_list()", "messages of the user in the last call, where 3"),
    ],
)
async def test_a_memory_that_holds_half_of_it_or_everything_twice(
    attempt: Callable[..., Notebook], kept: str, why: str
) -> None:
    nb = attempt("remembers", kept=kept)
    assert why in await refused(nb02.remembers, await connect(), nb["Conversation"])


async def test_a_tool_without_a_description(attempt: Callable[..., Notebook]) -> None:
    nb = attempt("tool_added", described="")
    activities = [get_weather, nb["calculate"]]
    said = await refused(nb02.tool_added, await connect(), nb["Assistant"], activities)
    assert "calculate with no docstring" in said


@pytest.mark.parametrize(
    ("exchanged", "why"),
    [
        ({"argument": '{"expr": expression}'}, "activity calculate keeps failing"),
        (
            {"signature": "calculate(expr: str)", "argument": '{"expression": expr}'},
            "calculate(expr)",
        ),
    ],
    ids=["fails", "named otherwise"],
)
async def test_a_tool_that_fails_or_has_another_argument(
    attempt: Callable[..., Notebook], exchanged: dict[str, str], why: str
) -> None:
    nb = attempt("tool_added", **exchanged)
    activities = [get_weather, nb["calculate"]]
    said = await refused(nb02.tool_added, await connect(), nb["Assistant"], activities)
    assert why in said and "goes on" not in said


@pytest.mark.parametrize(
    ("started", "why"),
    [
        ("return ctx.start_workflow(workflows.StockPrice", "An `await` is missing"),
        (
            "return await ctx.start_workflows(workflows.StockPrice",
            "has no attribute 'start_workflows', in line 15 of the handler's cell",
        ),
    ],
    ids=["not awaited", "mistyped"],
)
async def test_a_handler_that_raises_is_said_at_once(
    attempt: Callable[..., Notebook], nb: Notebook, started: str, why: str
) -> None:
    client: Client = await start()
    nb.run("from workshop_lib import lab\nfrom workshop_lib.teams.finance import contract")
    attempt("handler", started=started)
    assert why in await refused(nb03.handler, client, nb["MyFinance"])


@pytest.mark.parametrize(
    ("run_id", "why"),
    [
        ('f"price-{request.ticker}"', "which another request for the same has, too"),
        ('"price"', "which another request for the same has, too"),
        ('lab.new_id(f"price-{request.ticker}")', "two runs for one request"),
        ('lab.new_id(f"price-{ctx.request_id}")', "two runs for one request"),
        ('self.__dict__.setdefault(ctx.request_id, lab.new_id("x"))', "two runs for one request"),
        ('f"price-{hash(ctx.request_id)}"', "another one in each process"),
    ],
    ids=["ticker", "constant", "stub", "half", "remembered", "hash"],
)
async def test_an_id_that_a_second_start_does_not_make_or_another_request_does(
    attempt: Callable[..., Notebook], nb: Notebook, run_id: str, why: str
) -> None:
    client: Client = await start()
    nb.run("from workshop_lib import lab\nfrom workshop_lib.teams.finance import contract")
    attempt("handler", run_id=run_id)
    assert why in await refused(nb03.handler, client, nb["MyFinance"])


def listing(*names: str, said: str = "A rate.", takes: Sequence[str] = ("currency",)) -> Step:
    schema = {"properties": {name: {} for name in takes}}
    tools = [
        {"name": name, "description": said, "input_schema": schema}
        for name in ("stock_price", *names)
    ]
    return Step(kind=ACTIVITY, name=nb04.LISTING, state=COMPLETED, result={"tools": tools})


def call_of_it(result: object = None) -> Step:
    request = {"name": "exchange_rate"}
    state = RUNNING if result is None else COMPLETED
    return Step(kind=ACTIVITY, name=nb04.CALL, input=request, state=state, result=result)


KEY_ERROR = {"is_error": True, "content": [{"type": "text", "text": "no such currency"}]}


@pytest.mark.parametrize(
    ("signals", "steps", "why"),
    [
        ([], [listing(), listing("fx")], "no signal in the session's history"),
        (["tool_changed"], [listing()], "listens to 'tools_changed'"),
        (["tools_changed"], [listing(), listing()], "no new tool in the list"),
        (["tools_changed"], [listing("exchange_rate"), call_of_it({})], "no new tool in the list"),
        (
            ["tools_changed"],
            [listing(), listing("exchange_rate", said=" "), call_of_it({})],
            "exchange_rate without a docstring",
        ),
        (
            ["tools_changed"],
            [listing(), listing("exchange_rate", takes=["code"]), call_of_it({})],
            "exchange_rate(code)",
        ),
        (["tools_changed"], [listing(), listing("fx")], "fx in the list, and no call of it"),
        (["tools_changed"], [listing(), listing("exchange_rate"), call_of_it()], "no result"),
        (
            ["tools_changed"],
            [listing(), listing("exchange_rate"), call_of_it(KEY_ERROR)],
            "failed: no such currency",
        ),
    ],
    ids=[
        "not told",
        "mistyped",
        "not served",
        "new session",
        "not described",
        "another argument",
        "not called",
        "no result",
        "fails",
    ],
)
async def test_a_new_tool_that_does_not_work(
    monkeypatch: pytest.MonkeyPatch, signals: list[str], steps: list[Step], why: str
) -> None:
    async def of(handle: object) -> History:
        return History(steps=[*steps, *(Step(kind=SIGNAL, name=name) for name in signals)])

    monkeypatch.setattr(nb04, "history_of", of)
    assert why in await refused(nb04.new_tool, Chat())


class Chat:
    handle = None


class Answer:
    text = "Stock price for NVDA"


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (
            {"attempts": 2, "failed_with": "", "lost": False},
            None,
        ),  # its failure was too long to keep
        ({"attempts": 2, "failed_with": SERVER_DOWN, "lost": False}, None),
        ({"attempts": 2, "failed_with": "", "lost": True}, "not because of the server"),
        ({"attempts": 1}, "tried once"),
    ],
    ids=["cut short", "server down", "worker lost", "nothing happened"],
)
async def test_what_a_second_try_proves(
    monkeypatch: pytest.MonkeyPatch, call: dict[str, Any], why: str | None
) -> None:
    async def of(handle: object) -> History:
        step = Step(kind=ACTIVITY, name=nb04.CALL, state=COMPLETED, **call)
        return History(steps=[step])

    async def runs(handle: object, namespace: str) -> list[str]:
        return ["stock-price-NVDA"]

    async def reply(awaitable: object, *_: object, **__: object) -> Answer:
        return Answer()

    for name, stand_in in (("history_of", of), ("mcp_runs", runs), ("watch", reply)):
        monkeypatch.setattr(nb04, name, stand_in)
    over = asyncio.get_running_loop().create_future()
    over.set_result(None)
    checked = nb04.killed_server, None, Chat(), over, "NVDA"
    if why:
        assert why in await refused(*checked)
    else:
        await nb04.killed_server(*checked[1:])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exchanged", "why"),
    [
        ({"limit": "timeout=12"}, "a plain number means seconds"),
        ({"limit": "timeout=timedelta(hours=14)"}, "still waits after twelve hours"),
        ({"limit": "timeout=timedelta(hours=12, minutes=50)"}, "still waits after twelve hours"),
        ({"limit": "timeout=timedelta(hours=10)"}, "10:00:0"),
        ({"limit": "timeout=timedelta(hours=11, minutes=30)"}, "11 h 30 min"),
        ({"caught": "except ZeroDivisionError:"}, "Python's own"),
        ({"expired": "raise RuntimeError('expired')"}, "RuntimeError: expired"),
        ({"waits": "workflow.wait_condition("}, "ended at once"),
        ({"waits": "await workflow.sleep(12 * 3600) or (lambda *_, **__: None)("}, "goes on after"),
    ],
    ids=[
        "seconds",
        "too late",
        "late",
        "early",
        "a little early",
        "not caught",
        "raised",
        "not awaited",
        "slept",
    ],
)
async def test_a_wait_that_ends_too_early_too_late_or_with_an_error(
    attempt: Callable[..., Notebook], exchanged: dict[str, str], why: str
) -> None:
    nb = attempt("expires", **exchanged)
    said = await refused(nb06.expires, await connect(), nb["Decision"])
    assert why in said and "CancelledError" not in said


@pytest.mark.parametrize("loops", [("manual", "sdk"), ("sdk", "mcp"), ("mcp",)])
async def test_lines_that_two_loops_share_are_counted_for_none(
    monkeypatch: pytest.MonkeyPatch, loops: tuple[str, ...]
) -> None:
    counted: list[set[str]] = []

    async def measure(client: object, loop: str, question: str, own: set[str]) -> None:
        counted.append({*comparison.CODE[loop]} & own)

    monkeypatch.setattr(comparison, "_measure", measure)
    await comparison.compare_loops(None, "", loops)  # type: ignore[arg-type]
    assert all(counted) and sum(map(len, counted)) == len(set().union(*counted))
