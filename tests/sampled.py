"""A table of like cases: a seeded sample of it in every run, all of it with `-m long`.

Left out: what differs in kind. A test of its own is named, and runs.
"""

import random
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest

Case = TypeVar("Case")


def sampled(
    cases: Iterable[Case],
    count: int,
    *,
    ids: Callable[[Case], str] | Iterable[str] | None = None,
    always: Callable[[Case], bool] = lambda case: False,
) -> list[Any]:
    """The cases as parameters of a test, all but a sample of them marked `long`.

    Args:
        cases: values, or tuples of values where the test takes several.
        count: how many run always, beside the ones that are chosen by name.
        ids: how each is called, or their names in order; else pytest finds a name.
        always: whether a case is one of those that run always.
    """
    table = list(cases)
    names = map(ids, table) if callable(ids) else (ids or [None] * len(table))
    rest = [number for number, case in enumerate(table) if not always(case)]
    only_long = {*rest} - {*random.Random(len(table)).sample(rest, min(count, len(rest)))}
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            id=name,
            marks=[pytest.mark.long] if number in only_long else [],
        )
        for number, (case, name) in enumerate(zip(table, names, strict=True))
    ]
