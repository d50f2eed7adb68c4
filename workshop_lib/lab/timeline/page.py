"""A timeline of one run, drawn in the notebook from its event history.

`await timeline(handle)` as the last line of a cell shows who did what and when: people, the model, tools,
Nexus operations and timers; attempts, failures, and the stretches in which no worker was there. Where an
operation has started a workflow in another team's namespace, that side is drawn too. The same as text stands
below the picture, for terminals, with a link into the Web UI.

Left out: how a history is read (`history`), how a picture is laid out (`rows`), and following a run
live: run the cell again to see more of it.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import LinkedRun, read_history
from workshop_lib.lab.other_side import follow
from workshop_lib.lab.timeline.rows import html_page, text_form
from workshop_lib.lab.timeline.run import Run, drawn_run, other_side


@dataclass(frozen=True, repr=False)
class Timeline:
    """A run as a picture and as text. Jupyter shows the picture, `print` the text.

    Attributes:
        run: what the history says, read into bars, marks and gaps.
        links: into the Web UI, as words and address.
    """

    run: Run
    links: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_events(
        cls,
        events: Iterable[HistoryEvent],
        *,
        describe: DescribeWorkflowExecutionResponse | None = None,
        now: float | None = None,
        most_steps: int = 60,
    ) -> "Timeline":
        """A timeline of a history that is at hand; nothing is fetched.

        Args:
            events: a run's history from its first event on.
            describe: the server's answer to a describe call, for what is pending.
            now: Unix seconds; where a run that is not over is drawn to.
            most_steps: of a longer run only the last turns are drawn, and the picture says so.
        """
        history = read_history(events, describe=describe, now=now)
        return cls(drawn_run(history, most_steps=most_steps))

    def __repr__(self) -> str:
        return text_form(self.run)

    def _repr_html_(self) -> str:
        return html_page(self.run, self.links)


async def timeline(
    handle: WorkflowHandle[Any, Any],
    *,
    ui_url: str | None = None,
    timeout: float = 10,
) -> Timeline:
    """Fetch a run's history and what is pending, and draw it.

    Args:
        handle: of the workflow; without a run id its latest run is meant.
        ui_url: the Web UI ("http://localhost:8233"), for the link to this run.
        timeout: seconds that the server may take.

    Raises:
        WorkshopError: there is no such run, or the server does not answer in time.
    """
    try:
        async with asyncio.timeout(timeout):
            # In this order: what is pending here and closed in the history is closed.
            description = await handle.describe()
            history = await handle.fetch_history()
            linked = await follow(handle._client, history.events)
    except TimeoutError:
        raise _unreachable(handle.id, f"within {timeout:g} seconds") from None
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise WorkshopError(
                f"There is no workflow {handle.id!r} in this namespace.",
                expected="the handle of a workflow that was started on this server.",
                fix="run the cell that starts it again: a new server knows no old runs.",
            ) from None
        raise _unreachable(handle.id, f"({error.status.name.lower()})") from None
    drawn = Timeline.from_events(
        history.events, describe=description.raw_description, now=time.time()
    )
    here = LinkedRun("", description.namespace, description.id, description.run_id)
    links = {"Open this run in the Web UI": here}
    for other in linked:
        drawn.run.bars += other_side(drawn.run, other.namespace, other.events)
        links[f"The other side: {other.workflow_id} in {other.namespace}"] = other
    drawn.run.bars.sort(key=lambda bar: bar.scheduled)
    if not ui_url:
        return drawn
    addresses = [
        (harmless.line(words), run_url(ui_url, run.namespace, run.workflow_id, run.run_id))
        for words, run in links.items()
    ]
    return replace(drawn, links=tuple(addresses))


def run_url(ui_url: str, namespace: str, workflow_id: str, run_id: str) -> str:
    """The address of one run's history in the Web UI.

    Raises:
        WorkshopError: `ui_url` is not a web address.
    """
    if not ui_url.startswith(("http://", "https://")):
        raise WorkshopError(
            f"{ui_url!r} is not the address of a Web UI.",
            expected="an address such as http://localhost:8233.",
        )
    parts = ("namespaces", namespace, "workflows", workflow_id, run_id, "history")
    return "/".join([ui_url.rstrip("/"), *(quote(part, safe="") for part in parts)])


def _unreachable(workflow_id: str, how: str) -> WorkshopError:
    return WorkshopError(
        f"The server did not answer {how} when asked for the history of {workflow_id!r}.",
        expected="a running Temporal server.",
        fix="see `workshop status`, start the server with `workshop up`, and run this cell again.",
    )
