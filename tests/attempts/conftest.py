"""A lab of its own for the attempts at a notebook's exercises."""

from collections.abc import Iterator

import pytest
from lab_cells import Notebook, dev_server, notebook

from workshop_lib.lab.registry import stop_all


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in memory; yields its address."""
    with dev_server(tmp_path_factory.mktemp("lab")) as address:
        yield address


@pytest.fixture
def nb(server: str) -> Iterator[Notebook]:
    """A notebook in which nothing has been run."""
    yield notebook()
    stop_all()
