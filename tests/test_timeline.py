"""The timeline of a run, read from histories that a real server wrote."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from html.parser import HTMLParser

import nexusrpc
import nexusrpc.handler
import pytest
import pytest_asyncio
from lab_environment import fresh
from temporalio import activity, workflow
from temporalio.api.nexus.v1 import EndpointSpec
from temporalio.api.operatorservice.v1 import CreateNexusEndpointRequest
from temporalio.client import Client, WorkflowHandle, WorkflowHistory, WorkflowUpdateStage
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import COMPLETED, FAILED, RETRYING, RUNNING, UNFINISHED
from workshop_lib.lab.timeline.labels import duration, shorten
from workshop_lib.lab.timeline.page import Timeline, run_url, timeline
from workshop_lib.lab.timeline.run import MODEL, NEXUS, PEOPLE, TIMERS, TOOLS, Bar
from workshop_lib.settings import PROJECT_ROOT

LIMIT = timedelta(seconds=30)
NASTY = '<script>alert(1)</script> & \x1b[31m\x00 "price"?'


@nexusrpc.service
class Shop:
    price: nexusrpc.Operation[str, float]


@nexusrpc.handler.service_handler(service=Shop)
class ShopHandler:
    @nexusrpc.handler.sync_operation
    async def price(self, ctx: nexusrpc.handler.StartOperationContext, ticker: str) -> float:
        return 185.5


@activity.defn
async def plan_next_action(message: str) -> str:
    return f"look at the shelf for {message}"


@activity.defn
async def look_at_shelf(empty_for: int) -> str:
    if activity.info().attempt <= empty_for:
        raise ApplicationError("the shelf is empty")
    return "found"


@activity.defn
async def vanish_once() -> str:
    if activity.info().attempt == 1:
        activity.raise_complete_async()  # nobody ever completes it: as if its worker had been killed
    return "back again"


@workflow.defn
class Conversation:
    def __init__(self) -> None:
        self.over = False

    @workflow.run
    async def run(self, endpoint: str) -> str:
        self.endpoint = endpoint
        await workflow.wait_condition(lambda: self.over)
        return "bye"

    @workflow.update
    async def send_message(self, message: str) -> str:
        return await workflow.execute_activity(
            plan_next_action, message, start_to_close_timeout=LIMIT
        )

    @workflow.update
    async def use_everything(self, attempts: int) -> float:
        await workflow.execute_activity(
            look_at_shelf,
            attempts,
            start_to_close_timeout=LIMIT,
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=10), maximum_attempts=3
            ),
        )
        await workflow.sleep(0.01, summary="let the tea cool")
        shop = workflow.create_nexus_client(service=Shop, endpoint=self.endpoint)
        return await shop.execute_operation(Shop.price, "AAPL", schedule_to_close_timeout=LIMIT)

    @workflow.update
    async def outlive_a_worker(self) -> str:
        return await workflow.execute_activity(
            vanish_once, start_to_close_timeout=timedelta(seconds=1)
        )

    @workflow.update
    async def wait_for_the_shelf(self) -> str:
        return await workflow.execute_activity(
            look_at_shelf,
            99,
            start_to_close_timeout=LIMIT,
            retry_policy=RetryPolicy(initial_interval=timedelta(minutes=10)),
        )

    @workflow.signal
    def end_chat(self) -> None:
        self.over = True


@workflow.defn
class Buggy:
    fixed = False

    @workflow.run
    async def run(self) -> str:
        if not Buggy.fixed:
            raise RuntimeError("a bug in workflow code")
        return "mended"


@pytest_asyncio.fixture
async def chat(client: Client, queue: str) -> AsyncIterator[WorkflowHandle[Conversation, str]]:
    spec = EndpointSpec(name=fresh("shop"))
    spec.target.worker.namespace = client.namespace
    spec.target.worker.task_queue = queue
    await client.operator_service.create_nexus_endpoint(CreateNexusEndpointRequest(spec=spec))
    handle = await client.start_workflow(
        Conversation.run, spec.name, id=fresh("chat "), task_queue=queue
    )
    yield handle
    if (await handle.describe()).close_time is None:
        await handle.terminate()


def new_worker(client: Client, queue: str, name: str = "first") -> Worker:
    return Worker(
        client,
        task_queue=queue,
        identity=name,
        workflows=[Conversation, Buggy],
        activities=[plan_next_action, look_at_shelf, vanish_once],
        nexus_service_handlers=[ShopHandler()],
        workflow_runner=UnsandboxedWorkflowRunner(),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )


def bar_of(drawn: Timeline, name: str) -> Bar:
    found = [bar for bar in drawn.run.bars if name in bar.label]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


async def until(
    handle: WorkflowHandle[Conversation, str], seen: Callable[[Timeline], object]
) -> Timeline:
    """The first timeline that holds what a test waits for."""
    for _ in range(100):
        drawn = await timeline(handle)
        if seen(drawn):
            return drawn
        await asyncio.sleep(0.1)
    raise AssertionError(f"never seen:\n{drawn}")


class Page(HTMLParser):
    """The picture, parsed: the words of its cells, its tooltips, and the places of its bars.

    Fails where what is opened is not closed.
    """

    def __init__(self, drawn: Timeline) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tooltips: list[str] = []
        self.widths: dict[str, float] = {}  # tooltip of a row → per cent of its filled bar
        self.open: list[str] = []
        self.feed(drawn._repr_html_())
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        given = {name: value or "" for name, value in attrs}
        if "title" in given:
            self.tooltips.append(given["title"])
        if tag == "i" and "width:" in given["style"] and given["class"] not in ("wait", "gap"):
            self.widths[self.tooltips[-1]] = float(given["style"].split("width:")[1].rstrip("%"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] not in ("style", "pre"):
            self.words.append(data)


@pytest.mark.parametrize("loop", ["manual", "sdk"])
def test_a_summary_is_a_call_of_the_model(loop: str) -> None:
    recorded = PROJECT_ROOT / "tests" / "histories" / f"summarised_{loop}.json"
    history = WorkflowHistory.from_json("chat", recorded.read_text())
    drawn = Timeline.from_events(history.events)
    assert {bar.lane for bar in drawn.run.bars if bar.name == "summarise"} == {MODEL}


async def test_everything_has_its_lane(
    client: Client, queue: str, chat: WorkflowHandle[Conversation, str]
) -> None:
    async with new_worker(client, queue):
        await chat.execute_update(Conversation.send_message, "hello")
        await chat.execute_update(Conversation.use_everything, 2)
        await chat.signal(Conversation.end_chat)
        await chat.result()
    drawn = await timeline(chat)
    lanes = {bar.name: bar.lane for bar in drawn.run.bars}
    assert lanes == {
        "send_message": PEOPLE,
        "use_everything": PEOPLE,
        "plan_next_action": MODEL,
        "look_at_shelf": TOOLS,
        "let the tea cool": TIMERS,
        "Shop.price": NEXUS,
    }
    assert {bar.state for bar in drawn.run.bars} == {COMPLETED}
    assert drawn.run.history.status == COMPLETED
    assert "signal end_chat" in [mark.name for mark in drawn.run.marks]
    assert not drawn.run.newcomers

    shelf = bar_of(drawn, "look_at_shelf")
    assert shelf.attempts == 3
    assert shelf.started is not None and shelf.ended is not None
    assert 0 < shelf.scheduled < shelf.started <= shelf.ended <= drawn.run.end

    text = str(drawn)
    assert "people      send_message “hello” accepted, answered in" in text
    line = next(line for line in text.splitlines() if "look_at_shelf" in line)
    assert "on attempt 3" in line and "(attempt 2: the shelf is empty)" in line
    times = [float(line.split()[0]) for line in text.splitlines()[1:]]
    assert times == sorted(times)
    words = Page(drawn).words
    assert any(word.endswith("s · attempt 3") for word in words)
    assert {PEOPLE, MODEL, TOOLS, NEXUS, TIMERS} <= set(words)


async def test_what_others_typed_cannot_break_the_page(
    client: Client, queue: str, chat: WorkflowHandle[Conversation, str]
) -> None:
    async with new_worker(client, queue):
        await chat.execute_update(Conversation.send_message, NASTY)
        await chat.execute_update(Conversation.send_message, "x" * 5000)
    drawn = await timeline(chat, ui_url="http://localhost:8233/")
    html = drawn._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "\x1b" not in html + str(drawn) and "\x00" not in html + str(drawn)
    assert any("<script>alert(1)</script>" in word for word in Page(drawn).words)
    assert max(len(bar.detail) for bar in drawn.run.bars) <= 40


async def test_the_picture_speaks_to_screen_readers(
    client: Client, queue: str, chat: WorkflowHandle[Conversation, str]
) -> None:
    async with new_worker(client, queue):
        await chat.execute_update(Conversation.send_message, "hello")
    drawn = await timeline(chat, ui_url="http://localhost:8233")
    html = drawn._repr_html_()
    label = html.split('role="figure" aria-label="')[1].split('"')[0]
    assert chat.id in label and "model: 1" in label
    assert "<details>" in html and "send_message “hello”" in html.split("<details>")[1]
    description = await chat.describe()
    address = run_url("http://localhost:8233", "default", chat.id, description.run_id)
    assert f'href="{address}"' in html
    assert repr(drawn) == str(drawn)  # what Jupyter shows where it shows no HTML


async def test_a_stopped_worker_leaves_a_gap_and_the_next_one_is_new(
    client: Client, queue: str, chat: WorkflowHandle[Conversation, str]
) -> None:
    async with new_worker(client, queue):
        await chat.execute_update(Conversation.send_message, "first")
        assert not (await timeline(chat)).run.gaps
    sent = asyncio.create_task(chat.execute_update(Conversation.send_message, "second"))
    waiting = await until(chat, lambda drawn: drawn.run.gaps)
    assert waiting.run.gaps[0].open
    assert "so far" in str(waiting)
    async with new_worker(client, queue, "second"):
        await sent
        drawn = await timeline(chat)
    assert len(drawn.run.gaps) == 1
    gap, second = drawn.run.gaps[0], bar_of(drawn, "plan_next_action “second”")
    assert not gap.open
    assert bar_of(drawn, "plan_next_action “first”").ended <= gap.start < gap.end  # type: ignore[operator]
    assert gap.end <= second.scheduled
    assert [mark.name for mark in drawn.run.newcomers] == ["new worker second"]
    assert drawn.run.newcomers[0].time == pytest.approx(gap.end)
    assert f"nobody at work for {duration(gap.end - gap.start)}" in str(drawn)
    assert any("nobody at work for" in word for word in Page(drawn).words)


async def test_an_activity_lost_with_its_worker(
    client: Client, queue: str, chat: WorkflowHandle[Conversation, str]
) -> None:
    async with new_worker(client, queue):
        sent = asyncio.create_task(chat.execute_update(Conversation.outlive_a_worker))
        await until(chat, lambda drawn: any(bar.name == "vanish_once" for bar in drawn.run.bars))
        await asyncio.sleep(0.2)
    async with new_worker(client, queue, "second"):
        await sent
        await chat.execute_update(Conversation.send_message, "welcome back")
        drawn = await timeline(chat)
    lost = bar_of(drawn, "vanish_once")
    assert lost.attempts == 2 and "timeout" in lost.note.lower()
    assert [mark.name for mark in drawn.run.newcomers] == ["new worker second"]
    assert [gap for gap in drawn.run.gaps if gap.end == pytest.approx(lost.started)]


async def test_pending_attempts_and_failures(
    client: Client, queue: str, chat: WorkflowHandle[Conversation, str]
) -> None:
    async with new_worker(client, queue):
        await chat.start_update(
            Conversation.wait_for_the_shelf, wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
        drawn = await until(chat, lambda d: any(bar.state == RETRYING for bar in d.run.bars))
        shelf = bar_of(drawn, "look_at_shelf")
        assert (shelf.attempts, shelf.note) == (2, "the shelf is empty")
        assert bar_of(drawn, "wait_for_the_shelf").state == RUNNING
        assert not drawn.run.gaps  # a worker is there: it is the shelf that is empty
        assert "waiting to be tried again" in str(drawn)
        assert any("attempt 2 · retrying" in word for word in Page(drawn).words)

        with pytest.raises(Exception, match="update failed"):
            await chat.execute_update(Conversation.use_everything, 99)
        drawn = await timeline(chat)
        assert bar_of(drawn, "use_everything").state == FAILED
        shelves = [bar for bar in drawn.run.bars if bar.name == "look_at_shelf"]
        assert (shelves[1].state, shelves[1].attempts) == (FAILED, 3)
        assert any("attempt 3 · failed" in word for word in Page(drawn).words)

        await chat.terminate(reason="enough")
        drawn = await timeline(chat)
    assert bar_of(drawn, "wait_for_the_shelf").state == UNFINISHED
    assert "terminated: enough" in str(drawn)


async def test_a_bug_in_workflow_code_is_shown_until_it_is_fixed(
    client: Client, queue: str
) -> None:
    Buggy.fixed = False
    async with new_worker(client, queue):
        handle = await client.start_workflow(Buggy.run, id=fresh("buggy"), task_queue=queue)
        drawn = await until(handle, lambda drawn: drawn.run.bars)  # type: ignore[arg-type]
        assert bar_of(drawn, "workflow task").state == RETRYING
        assert "keeps failing (a bug in workflow code)" in str(drawn)
        Buggy.fixed = True
        await handle.result()
    drawn = await timeline(handle)
    stuck = bar_of(drawn, "workflow task")
    assert stuck.state == COMPLETED and stuck.attempts > 1
    assert "keeps failing" not in str(drawn)


async def test_of_a_long_run_the_last_turns_are_shown(
    client: Client, queue: str, chat: WorkflowHandle[Conversation, str]
) -> None:
    async with new_worker(client, queue):
        for number in range(6):
            await chat.execute_update(Conversation.send_message, f"message {number}")
    events = (await chat.fetch_history()).events
    whole = Timeline.from_events(events)
    assert not whole.run.cut
    short = Timeline.from_events(events, most_steps=6)
    asked = [bar.detail for bar in short.run.bars if bar.lane == PEOPLE]
    assert 0 < len(asked) < 6 and asked[-1] == "“message 5”"
    assert f"the last {len(asked)} of 6 turns" in str(short)
    assert any("of 6 turns" in word for word in Page(short).words)


async def test_idle_time_leaves_room_for_the_work(
    client: Client, queue: str, chat: WorkflowHandle[Conversation, str]
) -> None:
    async with new_worker(client, queue):
        await chat.execute_update(Conversation.send_message, "hello")
    events = (await chat.fetch_history()).events
    drawn = Timeline.from_events(events, now=time.time() + 3600)
    page = Page(drawn)
    assert any(word.startswith(("59 min", "1 h")) for word in page.words)
    work = next(width for tip, width in page.widths.items() if tip.startswith("plan_next"))
    assert work > 20  # per cent; of an hour on a straight axis it would be nothing


async def test_errors_say_what_to_do(client: Client) -> None:
    with pytest.raises(WorkshopError, match="There is no workflow 'nobody'"):
        await timeline(client.get_workflow_handle("nobody"))
    with pytest.raises(WorkshopError, match="did not answer within"):
        await timeline(client.get_workflow_handle("nobody"), timeout=0)
    with pytest.raises(WorkshopError, match="not the address of a Web UI"):
        run_url("javascript:alert(1)", "default", "chat", "run")


async def test_the_address_of_a_run_is_quoted() -> None:
    assert (
        run_url("http://localhost:8233/", "default", "chat 1/2?", "r#1")
        == "http://localhost:8233/namespaces/default/workflows/chat%201%2F2%3F/r%231/history"
    )


async def test_an_empty_history_is_drawn_too() -> None:
    drawn = Timeline.from_events([])
    assert str(drawn).count("\n") == 0
    assert "Timeline of" in drawn._repr_html_()


async def test_labels_are_one_printable_line() -> None:
    assert shorten("a\n\tb\u202e\x00c" + "d" * 100, 10) == "a b cdddd…"
