"""Attempts that are nearly right, as learners make them: each check refuses them and says why.

That a stub is refused and a solution passes is shown for every exercise elsewhere. Here are wrong solutions
that run without an error, on a lab of its own: the cells of the notebooks, with one thing wrong in each.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jupytext
import pytest
from lab_cells import Notebook, dev_server, notebook
from temporalio.client import Client

from workshop_lib.agents.flat_tools import get_weather
from workshop_lib.connect import connect
from workshop_lib.lab.checks import CheckNotMet, nb02, nb03, nb04, nb05, nb06
from workshop_lib.lab.classroom import start
from workshop_lib.lab.history import ACTIVITY, COMPLETED, RUNNING, SIGNAL, History, Step
from workshop_lib.lab.workers import stop_all
from workshop_lib.settings import PROJECT_ROOT

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
    "key": 'f"{step.workflow_run_id}/{step.activity_id}"',
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


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("step.workflow_id", "226 badge sets from a run that orders twice"),
        ("step.workflow_run_id", "226 badge sets from a run that orders twice"),
        ("step.activity_id", "begin again at 1 in each run"),
        ('f"{step.workflow_run_id}/{step.attempt}"', "339 badge sets ordered in 3 attempts"),
    ],
)
async def test_a_key_that_others_share_or_that_changes(
    attempt: Callable[..., Notebook], key: str, why: str
) -> None:
    nb = attempt("once", key=key)
    assert why in await refused(nb05.once, await connect(), nb["Badges"], nb["order_badges"])


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        ("pass", "'The weather in Seattle: 14 °C, light rain, wind 15 km/h.' 0 times"),
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
            "has no attribute 'start_workflows', in line 14 of the handler's cell",
        ),
    ],
    ids=["not awaited", "mistyped"],
)
async def test_a_handler_that_raises_is_said_at_once(
    attempt: Callable[..., Notebook], nb: Notebook, started: str, why: str
) -> None:
    client: Client = await start()
    nb.run("from workshop_lib import lab\nfrom workshop_lib.teams.finance import contract")
    await serve_the_orchestrator()
    attempt("handler", started=started)
    assert why in await refused(nb03.handler, client, nb["MyFinance"])


@pytest.mark.parametrize(
    ("run_id", "why"),
    [
        ('f"price-{request.ticker}"', "which another request for the same would have too"),
        (
            'lab.new_id(f"price-{request.ticker}")',
            "which does not hold the whole id of the request",
        ),
        ('lab.new_id(f"price-{ctx.request_id}")', "knows only the request's id"),
    ],
)
async def test_an_id_that_a_second_start_does_not_make_or_another_request_does(
    attempt: Callable[..., Notebook], nb: Notebook, run_id: str, why: str
) -> None:
    client: Client = await start()
    nb.run("from workshop_lib import lab\nfrom workshop_lib.teams.finance import contract")
    await serve_the_orchestrator()
    attempt("handler", run_id=run_id)
    assert why in await refused(nb03.handler, client, nb["MyFinance"])


async def serve_the_orchestrator() -> None:
    from workshop_lib.agents.worker import orchestrator
    from workshop_lib.lab.workers import start_worker
    from workshop_lib.teams.it.worker import it

    for spec in (orchestrator(), it()):
        await start_worker(spec, announce=False)


def listing(*names: str) -> Step:
    tools = [{"name": name} for name in ("stock_price", *names)]
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
        (["tools_changed"], [listing(), listing("fx")], "fx in the list, and no call of it"),
        (["tools_changed"], [listing(), listing("exchange_rate"), call_of_it()], "no result"),
        (
            ["tools_changed"],
            [listing(), listing("exchange_rate"), call_of_it(KEY_ERROR)],
            "failed: no such currency",
        ),
    ],
    ids=["not told", "mistyped", "not served", "new session", "not called", "no result", "fails"],
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


@pytest.mark.parametrize(
    ("exchanged", "why"),
    [
        ({"limit": "timeout=12"}, "a plain number means seconds"),
        ({"limit": "timeout=timedelta(hours=14)"}, "still waits after twelve hours"),
        ({"limit": "timeout=timedelta(hours=12, minutes=50)"}, "still waits after twelve hours"),
        ({"limit": "timeout=timedelta(hours=10)"}, "10:00:0"),
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
