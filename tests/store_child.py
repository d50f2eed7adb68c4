"""A process that repairs through the store, for tests: `store_child.py KIND` with its order on stdin.

`many`: carry out a list of repairs. `die`: carry out one and be killed by SIGKILL at a named statement.
"""

import json
import os
import signal
import sys
from typing import Any

from sqlalchemy import event

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.models import ARGUMENTS
from workshop_lib.repair.store import OrderStore


def repair(store: OrderStore, key: str, tool: Any, arguments: dict[str, Any]) -> str:
    try:
        applied = store.apply(key, ARGUMENTS[tool].model_validate(arguments))
    except WorkshopError as error:
        return f"{type(error).__name__}: {error.what}"
    return "repeated" if applied.repeated else "done"


def main() -> None:
    order = json.loads(sys.stdin.readline())
    store = OrderStore(order["url"])
    if sys.argv[1] == "die":
        kill_at(store, order["at"])
    print("ready", flush=True)
    sys.stdin.readline()  # all start at once
    print(json.dumps([repair(store, *one) for one in order["repairs"]]), flush=True)


def kill_at(store: OrderStore, at: str) -> None:
    """Die right before the statement that begins with `at`, or before or after the commit."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def look(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(at):
            die()

    if at == "COMMIT":
        event.listen(store.engine, "commit", die)
    elif at == "after COMMIT":
        # The dialect has committed when the connection goes back.
        event.listen(store.engine, "checkin", die)
    else:
        event.listen(store.engine, "before_cursor_execute", look)


if __name__ == "__main__":
    main()
