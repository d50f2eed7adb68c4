"""The order store, on SQLite and on a real PostgreSQL: every repair once, none lost, none half."""

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lab_environment import free_port
from order_samples import TODAY, seventh_order
from postgres_server import MISSING, PASSWORD, postgres, postgres_programs
from repair_ground import assert_repaired_once, dump_of
from sqlalchemy import text
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.database import StoreUnavailable
from workshop_lib.repair.models import (
    InventoryItem,
    Order,
    OrderInventory,
    RequestApproval,
    RequestPaymentUpdate,
)
from workshop_lib.repair.states import State
from workshop_lib.repair.store import OrderStore, RepairRefused, open_store
from workshop_lib.repair.tools import LookRequest, RepairCall, look_at_orders, order_inventory
from workshop_lib.repair.worker import repair
from workshop_lib.settings import PROJECT_ROOT

TESTS = Path(__file__).parent
BADGES = {"order_id": "ORD-002-HJG", "item_id": "STP-ORG-001", "quantity": 113}


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip(MISSING)
    with postgres(programs) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'orders.db'}"
    found = str(request.getfixturevalue("postgres_url"))
    with OrderStore(found).engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return found


@pytest.fixture
def store(url: str) -> Iterator[OrderStore]:
    opened = OrderStore(url)
    yield opened
    opened.engine.dispose()


def badges(quantity: int = 113) -> OrderInventory:
    return OrderInventory.model_validate(BADGES | {"quantity": quantity})


def stock(store: OrderStore, item_id: str = "STP-ORG-001") -> InventoryItem:
    found = store.snapshot(TODAY).item(item_id)
    assert found is not None
    return found


def status(store: OrderStore, order_id: str) -> str:
    found = store.snapshot(TODAY).order(order_id)
    assert found is not None
    return found.status


def data_files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (PROJECT_ROOT / "data").glob("*.json")}


class Children:
    """Processes that begin their repairs at the same moment."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._started: list[subprocess.Popen[str]] = []

    def add(self, kind: str, repairs: list[tuple[str, str, dict[str, Any]]], at: str = "") -> None:
        child = subprocess.Popen(
            [sys.executable, TESTS / "store_child.py", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._started.append(child)
        assert child.stdin
        print(json.dumps({"url": self._url, "at": at, "repairs": repairs}), file=child.stdin)
        child.stdin.flush()

    def run(self) -> list[tuple[int, list[str]]]:
        """Exit status and outcomes of each."""
        for child in self._started:
            assert child.stdout and child.stdout.readline() == "ready\n"
        for child in self._started:
            assert child.stdin
            child.stdin.write("\n")
            child.stdin.flush()
        ended = []
        for child in self._started:
            said, _ = child.communicate(timeout=60)
            ended.append((child.returncode, list(json.loads(said or "[]"))))
        return ended

    def clear(self) -> None:
        for child in self._started:
            if child.poll() is None:
                child.kill()
            child.wait()


@pytest.fixture
def children(url: str) -> Iterator[Children]:
    started = Children(url)
    yield started
    started.clear()


def test_the_first_reader_loads_the_data(store: OrderStore) -> None:
    snapshot = store.snapshot(TODAY)
    written = json.loads((PROJECT_ROOT / "data/orders.json").read_text())["orders"]
    assert snapshot.orders == [Order.model_validate(order) for order in written]
    articles = json.loads((PROJECT_ROOT / "data/inventory.json").read_text())["items"]
    assert snapshot.inventory == [InventoryItem.model_validate(item) for item in articles]
    assert snapshot.open_requests == [] and snapshot.today == TODAY
    assert store.snapshot(TODAY).digest == snapshot.digest


def test_a_repair_is_carried_out_and_is_in_the_ledger(store: OrderStore) -> None:
    before = store.snapshot(TODAY)
    applied = store.apply("k1", badges())
    assert not applied.repeated
    assert "113" in applied.outcome and "360" in applied.outcome
    item = stock(store)
    assert (item.current_stock, item.available_stock) == (360, 300)
    assert status(store, "ORD-002-HJG") == "inventory-ordered"
    (row,) = store.ledger()
    assert (row.idempotency_key, row.tool, row.item_id) == ("k1", "order_inventory", "STP-ORG-001")
    (request,) = store.snapshot(TODAY).open_requests
    assert (request.order_id, request.item_id) == ("ORD-002-HJG", "STP-ORG-001")
    assert store.snapshot(TODAY).digest != before.digest


def test_a_repeated_key_gets_the_first_outcome_and_changes_nothing(store: OrderStore) -> None:
    first = store.apply("k1", badges())
    before = dump_of(store)
    for _ in range(3):
        again = store.apply("k1", badges())
        assert again.outcome == first.outcome and again.repeated
    assert dump_of(store) == before


def test_the_same_request_under_another_key_changes_nothing(store: OrderStore) -> None:
    store.apply("k1", badges())
    before = dump_of(store)
    assert store.apply("k2", badges(140)).repeated
    assert dump_of(store) == before


def test_the_other_tools_and_the_status_that_wins(store: OrderStore) -> None:
    approval = RequestApproval(order_id="ORD-004-RHG", reason="A dragon egg.")
    kibble = OrderInventory(order_id="ORD-004-RHG", item_id="CRT-FD-101", quantity=365)
    payment = RequestPaymentUpdate(order_id="ORD-003-RBW", reason="Denied.")
    assert "approve-orders@diagonalley.co.uk" in (store.apply("a", approval).outcome)
    store.apply("b", kibble)
    store.apply("c", payment)
    assert status(store, "ORD-004-RHG") == "approval-requested"
    assert status(store, "ORD-003-RBW") == "payment-update-requested"
    assert stock(store, "CRT-FD-101").available_stock == 10
    first = dump_of(store)["orders"]
    store.reset()
    store.apply("b", kibble)
    assert status(store, "ORD-004-RHG") == "inventory-ordered"
    store.apply("a", approval)
    store.apply("c", payment)
    assert dump_of(store)["orders"] == first  # whichever came first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (badges(254), "at most 253"),
        (badges().model_copy(update={"order_id": "ORD-999"}), "no order ORD-999"),
        (badges().model_copy(update={"item_id": "NO-SUCH"}), "no article NO-SUCH"),
        (badges().model_copy(update={"item_id": "CRT-FD-101"}), "not on the order"),
        (
            OrderInventory(order_id="ORD-004-RHG", item_id="DRG-EGG-007", quantity=1),
            "restricted",
        ),
    ],
    ids=["too many", "order", "article", "not on it", "restricted"],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    store: OrderStore, arguments: Any, says: str
) -> None:
    before = dump_of(store)
    with pytest.raises(RepairRefused, match=says):
        store.apply("k1", arguments)
    assert dump_of(store) == before


def test_a_key_of_another_repair_is_refused(store: OrderStore) -> None:
    store.apply("k1", badges())
    before = dump_of(store)
    with pytest.raises(RepairRefused, match="belongs to another"):
        store.apply("k1", badges(114))
    with pytest.raises(RepairRefused, match="belongs to another"):
        store.apply("k1", RequestPaymentUpdate(order_id="ORD-003-RBW", reason="x"))
    assert dump_of(store) == before


def test_reset_brings_back_what_was_loaded_first(store: OrderStore) -> None:
    files = data_files()
    loaded = dump_of(store)
    store.apply("k1", badges())
    store.add_order(seventh_order())
    assert store.snapshot(TODAY).order("ORD-007-GLK") == seventh_order()
    with pytest.raises(RepairRefused, match="already"):
        store.add_order(seventh_order())
    assert dump_of(store) != loaded
    store.reset()
    assert dump_of(store) == loaded
    assert data_files() == files


def test_processes_at_once_lose_no_update(store: OrderStore, children: Children) -> None:
    # Thirty orders for the same article, 5 of it each: the shelf has room for 253, so all fit.
    template = next(o for o in store.snapshot(TODAY).orders if o.order_id == "ORD-002-HJG")
    names = [f"ORD-1{number:02}" for number in range(30)]
    for name in names:
        store.add_order(template.model_copy(update={"order_id": name}))
    wanted = [
        (f"k-{name}", "order_inventory", BADGES | {"order_id": name, "quantity": 5})
        for name in names
    ]
    for shift in range(3):  # every repair is asked for by three processes, in different orders
        children.add("many", wanted[shift * 10 :] + wanted[: shift * 10])
    ended = children.run()
    assert [code for code, _ in ended] == [0, 0, 0]
    outcomes = Counter(outcome for _, said in ended for outcome in said)
    assert outcomes == {"done": 30, "repeated": 60}
    assert stock(store).current_stock == 247 + 30 * 5
    assert len(store.ledger()) == 30


def test_the_shelf_is_not_overfilled_by_processes_at_once(
    store: OrderStore, children: Children
) -> None:
    template = next(o for o in store.snapshot(TODAY).orders if o.order_id == "ORD-002-HJG")
    for number in range(4):
        name = f"ORD-2{number}"
        store.add_order(template.model_copy(update={"order_id": name}))
        children.add("many", [(name, "order_inventory", BADGES | {"order_id": name})])
    outcomes = Counter(said[0].split(":")[0] for _, said in children.run())
    assert outcomes == {"done": 2, "RepairRefused": 2}  # 2 × 113 of 253 fit, 3 × do not
    assert stock(store).current_stock == 247 + 2 * 113


def test_processes_at_once_load_the_data_once(url: str, children: Children) -> None:
    for number in range(3):
        children.add("many", [(f"k{number}", "order_inventory", BADGES)])
    ended = children.run()
    assert Counter(said[0] for _, said in ended) == {"done": 1, "repeated": 2}
    assert len(OrderStore(url).snapshot(TODAY).orders) == 6


@pytest.mark.parametrize(
    ("at", "left"),
    [
        ("UPDATE inventory", 0),
        ("UPDATE orders", 0),
        ("INSERT INTO ledger", 0),
        ("COMMIT", 0),
        ("after COMMIT", 1),
    ],
)
def test_a_kill_in_mid_transaction_leaves_all_or_nothing(
    store: OrderStore, children: Children, at: str, left: int
) -> None:
    before = dump_of(store)
    children.add("die", [("k1", "order_inventory", BADGES)], at=at)
    assert [code for code, _ in children.run()] == [-signal.SIGKILL]
    assert len(store.ledger()) == left
    if not left:
        assert dump_of(store) == before
    assert store.apply("k1", badges()).repeated is bool(left)
    assert stock(store).current_stock == 360
    assert len(store.ledger()) == 1


def test_reset_while_repairs_run(store: OrderStore) -> None:
    store.reset()
    stop, under_way = threading.Event(), threading.Barrier(4)

    def repairing(number: int) -> int:
        under_way.wait(60)
        done = 0
        while done == 0 or not stop.is_set():
            store.apply(f"k{number}-{done}", badges())
            done += 1
        return done

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(repairing, number) for number in range(3)]
        try:
            under_way.wait(60)
            for _ in range(5):
                store.reset()
        finally:
            stop.set()
        assert all(future.result(60) for future in running)
    store.reset()
    assert stock(store).current_stock == 247 and store.ledger() == []


def test_a_store_of_another_version_says_what_to_do(store: OrderStore) -> None:
    store.reset()
    with store.engine.connect().execution_options(workshop_writing=True) as connection:
        connection.execute(text("UPDATE store_info SET version = 99"))
        connection.commit()
    with pytest.raises(WorkshopError, match="repair reset"):
        store.snapshot(TODAY)
    store.reset()
    assert len(store.snapshot(TODAY).orders) == 6


@pytest.mark.parametrize(
    ("orders", "says"),
    [
        (None, "No such file"),
        ("{", "JSON"),
        ("[]", "TypeError"),
        ("{}", "KeyError"),
        ('{"orders": [{"order_id": "ORD-1"}]}', "0.customer_name"),
        ("twice", "ORD-001-HJP more than once"),
    ],
)
def test_data_that_somebody_has_broken_is_said(
    tmp_path: Path, orders: str | None, says: str
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(PROJECT_ROOT / "data", folder)
    if orders is None:
        (folder / "orders.json").unlink()
    elif orders == "twice":
        written = json.loads((folder / "orders.json").read_text())
        written["orders"].append(written["orders"][0])
        (folder / "orders.json").write_text(json.dumps(written))
    else:
        (folder / "orders.json").write_text(orders)
    store = OrderStore(f"sqlite:///{tmp_path / 'orders.db'}", folder)
    for asking in (store.reset, lambda: store.snapshot(TODAY)):
        with pytest.raises(WorkshopError, match=says):
            asking()
    shutil.copy(PROJECT_ROOT / "data/orders.json", folder / "orders.json")
    assert len(store.snapshot(TODAY).orders) == 6  # mended, it is loaded


def test_a_broken_file_leaves_the_store_as_it_was(
    store: OrderStore, url: str, tmp_path: Path
) -> None:
    store.apply("k1", badges())
    before = dump_of(store)
    with pytest.raises(WorkshopError, match="cannot be used"):
        OrderStore(url, tmp_path).reset()
    assert dump_of(store) == before


def test_the_settings_name_the_store(
    url: str, settings_env: Callable[..., None], tmp_path: Path
) -> None:
    settings_env(ORDERS_DATABASE_URL=url)
    assert len(open_store().snapshot(TODAY).orders) == 6
    assert open_store() is open_store()
    settings_env(ORDERS_DATABASE_URL=None, WORKSHOP_STATE_DIR=tmp_path / "new")
    open_store().reset()
    assert (tmp_path / "new/orders.db").is_file()


async def test_repairs_at_once_on_this_database(
    client: Client, queue: str, url: str, store: OrderStore, settings_env: Callable[..., None]
) -> None:
    settings_env(ORDERS_DATABASE_URL=url)
    async with asyncio.timeout(150), repair().with_queue(queue).build(client):
        started = [
            await RepairClient.start(client, task_queue=queue, auto_approve=True) for _ in range(3)
        ]
        outcomes = await asyncio.gather(*(one.outcome() for one in started))
    # Who comes late finds nothing to do; who planned in time is answered with what was done.
    assert {outcome.state for outcome in outcomes} <= {State.COMPLETED, State.NO_REPAIR_NEEDED}
    assert_repaired_once(store)


async def test_what_is_retried_and_what_is_not(
    settings_env: Callable[..., None], tmp_path: Path
) -> None:
    call = RepairCall(key="k1", proposal_id="p1", arguments=badges(254))
    settings_env(WORKSHOP_STATE_DIR=tmp_path)
    with pytest.raises(ApplicationError, match="no room") as refused:
        await ActivityEnvironment().run(order_inventory, call)
    assert (refused.value.type, refused.value.non_retryable) == ("RepairRefused", True)
    settings_env(ORDERS_DATABASE_URL=f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/x")
    with pytest.raises(ApplicationError) as away:
        await ActivityEnvironment().run(look_at_orders, LookRequest(today=TODAY))
    assert (away.value.type, away.value.non_retryable) == ("StoreUnavailable", False)
    settings_env(ORDERS_DATABASE_URL=f"mysql://u:{PASSWORD}@127.0.0.1/x")
    with pytest.raises(ApplicationError) as unusable:
        await ActivityEnvironment().run(look_at_orders, LookRequest(today=TODAY))
    assert (unusable.value.type, unusable.value.non_retryable) == ("StoreUnusable", True)
    for error in (away.value, unusable.value):
        assert PASSWORD not in f"{error}{error.__cause__}"


@pytest.mark.parametrize(
    "written",
    [
        f"postgresql://workshop:{PASSWORD}@127.0.0.1:{free_port()}/postgres",
        f"postgresql://workshop@127.0.0.1:{free_port()}/postgres?password={PASSWORD}",
        f"mysql://workshop:{PASSWORD}@127.0.0.1/orders",
        f"postgresql//workshop:{PASSWORD}@127.0.0.1",
        f"postgresql://workshop:{PASSWORD}@127.0.0.1:port/orders",
        "sqlite://",
        "sqlite:////no/such/folder/orders.db",
    ],
    ids=["refused", "in the query", "other database", "no URL", "no port", "memory", "no folder"],
)
def test_a_url_that_leads_nowhere_is_said_without_its_password(written: str) -> None:
    with pytest.raises(WorkshopError) as raised:
        OrderStore(written).snapshot(TODAY)
    error: BaseException | None = raised.value
    assert PASSWORD not in str(error) and error.__cause__ is None
    assert "ORDERS_DATABASE_URL" in str(error)


def test_a_wrong_password_is_not_shown(postgres_url: str) -> None:
    wrong = postgres_url.replace(PASSWORD, "wr0ng-one")
    with pytest.raises(StoreUnavailable) as raised:
        OrderStore(wrong).snapshot(TODAY)
    assert "wr0ng-one" not in str(raised.value)


def test_a_lock_that_is_held_for_long_is_said(
    store: OrderStore, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr("workshop_lib.repair.database.WAIT_SECONDS", 1)
    store.reset()
    impatient = OrderStore(url)
    before = dump_of(store)
    with contextlib.ExitStack() as held:
        connection = held.enter_context(
            store.engine.connect().execution_options(workshop_writing=True)
        )
        connection.execute(text("UPDATE orders SET notes = notes"))
        with pytest.raises(StoreUnavailable, match="does not answer"):
            impatient.apply("k1", badges())
    assert dump_of(store) == before
