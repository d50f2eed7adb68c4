"""A damaged order store: said at once, with its row, and mended by `workshop repair reset`."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from repair_ground import TODAY
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from workshop_command import Workshop, workshop_command

from workshop_lib.repair.database import StoreDamaged, StoreUnavailable
from workshop_lib.repair.models import OrderInventory
from workshop_lib.repair.store import OrderStore
from workshop_lib.repair.tools import LookRequest, look_at_orders

BADGE = OrderInventory(order_id="ORD-002-HJG", item_id="STP-ORG-001", quantity=1)
TOTAL = "UPDATE orders SET total = 'much' WHERE order_id = 'ORD-004-RHG'"


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with workshop_command() as command:
        yield command


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all, and long enough to be read as one " * 40)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def changed(*statements: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)

    return damage


FILES: dict[str, Callable[[Path], None]] = {
    "garbage": garbage,
    "truncated": truncated,
    "a folder": a_folder,
    "a pipe": a_pipe,
    "no orders": changed("DROP TABLE orders"),
    "no ledger": changed("DROP TABLE ledger"),
    "no version": changed("DELETE FROM store_info"),
    "only the version's table is missing": changed("DROP TABLE store_info"),
    "a column is missing": changed("ALTER TABLE inventory DROP COLUMN supplier"),
}
ROWS: dict[str, tuple[str, str]] = {
    "a date": ("orders SET order_date = 'someday' WHERE order_id =", "ORD-003-RBW"),
    "no number": ("orders SET total = 'much' WHERE order_id =", "ORD-004-RHG"),
    "infinite": ("orders SET total = 9e999 WHERE order_id =", "ORD-004-RHG"),
    "too long": ("orders SET status = printf('%.*c', 999, 'x') WHERE order_id =", "ORD-001-HJP"),
    "no text": ("orders SET notes = CAST(x'ff' AS TEXT) WHERE 'notes' =", "notes"),
    "a line": ("order_items SET quantity = 0 WHERE order_id =", "ORD-002-HJG"),
    "no line": (
        "order_items SET order_id = 'ORD-001-HJP', line = line + 9 WHERE order_id =",
        "ORD-002-HJG",
    ),
    "negative": ("inventory SET current_stock = -1 WHERE item_id =", "STP-ORG-001"),
    "an article's date": ("inventory SET last_restocked = 5 WHERE item_id =", "STP-ORG-001"),
    "a tool": ("ledger SET tool = 'magic' WHERE idempotency_key =", "key-1"),
    "a request's article": ("ledger SET item_id = 'a b' WHERE idempotency_key =", "key-1"),
    "a request's day": ("ledger SET recorded_at = 'then' WHERE idempotency_key =", "key-1"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "orders.db"
    OrderStore(f"sqlite:///{found}").reset()
    return found


@pytest.mark.parametrize("damage", FILES.values(), ids=FILES)
def test_what_is_no_store_is_said_and_begun_anew(
    path: Path, damage: Callable[[Path], None]
) -> None:
    damage(path)
    store = OrderStore(f"sqlite:///{path}")
    for asking in (
        lambda: store.snapshot(TODAY),
        lambda: store.apply("key", BADGE),
    ):
        with pytest.raises(StoreDamaged, match="repair reset"):
            asking()
    kept = store.reset()
    if kept is not None:
        assert kept.parent == path.parent and kept.exists()
    assert len(store.snapshot(TODAY).orders) == 6
    assert store.reset() is None  # it is sound now


@pytest.mark.parametrize(("statement", "named"), ROWS.values(), ids=ROWS)
def test_a_row_that_is_none_is_named(path: Path, statement: str, named: str) -> None:
    store = OrderStore(f"sqlite:///{path}")
    store.apply("key-1", BADGE)
    changed(f"UPDATE {statement} '{named}'")(path)
    with pytest.raises(StoreDamaged, match=named) as kept:  # and with it what it was raised from
        store.snapshot(TODAY)
    store.reset()
    assert kept.value
    assert len(store.snapshot(TODAY).orders) == 6


def test_a_locked_store_is_not_damaged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workshop_lib.repair.database.WAIT_SECONDS", 1)
    store = OrderStore(f"sqlite:///{path}")
    with sqlite3.connect(path) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        for asking in (lambda: store.snapshot(TODAY), store.reset):
            with pytest.raises(StoreUnavailable, match="locked"):
                asking()
    assert [found.name for found in path.parent.iterdir()] == ["orders.db"]


async def test_a_step_does_not_ask_a_damaged_store_again(
    settings_env: Callable[..., None], path: Path
) -> None:
    settings_env(WORKSHOP_STATE_DIR=path.parent)
    changed(TOTAL)(path)
    with pytest.raises(ApplicationError, match="ORD-004-RHG") as failed:
        await ActivityEnvironment().run(look_at_orders, LookRequest(today=TODAY))
    assert (failed.value.type, failed.value.non_retryable) == ("StoreDamaged", True)


def test_a_run_ends_with_the_row_and_goes_well_after_a_reset(workshop: Workshop) -> None:
    path = workshop.state / "orders.db"
    assert workshop("repair", "orders").returncode == 0
    for damage in (
        garbage,
        changed(TOTAL),
    ):
        damage(path)
        for command in (["orders"], ["run", "--auto-approve"]):
            done = workshop("repair", *command)
            assert done.returncode == 1
            assert "Traceback" not in done.stderr
            assert "repair reset" in done.stdout + done.stderr
        mended = workshop("repair", "reset")
        assert mended.returncode == 0, mended.stderr
        assert (".damaged-" in mended.stderr) == (damage is garbage)
        shown = json.loads(workshop("repair", "orders", "--json").stdout)
        assert len(shown["orders"]) == 6
