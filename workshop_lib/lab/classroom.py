"""What a notebook does with the lab, in a handful of words: start it, name a worker, look at a run.

`workshop_lib.lab` offers these next to the parts they are made of. Left out: everything that code outside a
notebook needs.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import Client, Plugin, WorkflowHandle, WorkflowHistory

from workshop_lib.agents.model_call import plan_next_action
from workshop_lib.auth.outbound import at_the_keyboard
from workshop_lib.lab.history import event_lines
from workshop_lib.lab.jupyter import quiet as quiet_notebook
from workshop_lib.lab.server.lifecycle import ensure_server
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.lab.timeline.page import Timeline, timeline
from workshop_lib.lab.watching.listening import look_after_cells
from workshop_lib.lab.watching.waiting import Notices
from workshop_lib.lab.workers import cells
from workshop_lib.lab.workers.forking import get_ready
from workshop_lib.llm.gateway import warm_up
from workshop_lib.settings import get_settings
from workshop_lib.temporal.connect import connect, ui_url
from workshop_lib.temporal.worker import WorkerSpec


async def start() -> Client:
    """Start or find the dev server, ensure its namespaces, load `%%workflow`, and connect.

    Running it again is harmless. Returns a client of the orchestrator's namespace.

    Raises:
        WorkshopError: no server can be had; the text says why and what to do.
    """
    from IPython import get_ipython

    server = await asyncio.to_thread(ensure_server)
    if server.note:
        print(server.note)
    for message in await ensure_namespaces(server):
        if not message.startswith(
            "created"
        ):  # a beginner need not know yet; what was mended is told
            print(message)
    # A connection whose server a lesson has killed cannot be closed in order; nothing is lost by that.
    logging.getLogger("openai.agents").setLevel(logging.CRITICAL)
    if (shell := get_ipython()) is not None:
        cells.register(shell)
        quiet_notebook.register(shell)
        look_after_cells(shell)
    client = await connect(interceptors=[Notices(in_front=cells.in_front), *at_the_keyboard()])
    print(f"Temporal server at {server.address} · Web UI {server.ui_url or 'unknown'}")
    print(f"Model: {get_settings().model.name} ({get_settings().model.why})")
    return client


def spec(
    name: str,
    *,
    workflows: Sequence[type] = (),
    activities: Sequence[Callable[..., Any]] = (),
    client_plugins: Sequence[Callable[[], Plugin]] = (),
) -> WorkerSpec:
    """A worker of the orchestrator's namespace, with a task queue of its own name.

    One that calls models loads the model library when it starts, not in its first call.

    Args:
        client_plugins: makers of the plugins that its workflows need, such as `agents_plugin`.
    """
    calls_models = plan_next_action in activities or bool(client_plugins)
    if calls_models:
        get_ready()  # lessons kill such workers, in processes of their own
    return WorkerSpec(
        name=name,
        namespace=get_settings().orchestrator_namespace,
        task_queue=f"{name}-task-queue",
        workflows=tuple(workflows),
        activities=tuple(activities),
        client_plugins=tuple(client_plugins),
        warm_ups=(warm_up,) if calls_models else (),
    )


def new_id(name: str) -> str:
    """A workflow id that no run has had: the name and a few random characters."""
    return f"{name}-{uuid.uuid4().hex[:6]}"


def seconds(number: float) -> timedelta:
    """A time limit, as Temporal's calls take it."""
    return timedelta(seconds=number)


async def show_timeline(run: WorkflowHandle[Any, Any] | WorkflowHistory) -> Timeline:
    """The run so far as a picture, with the link to it in the Web UI; or a history that is at hand."""
    if isinstance(run, WorkflowHistory):
        return Timeline.from_events(run.events)
    return await timeline(run, ui_url=ui_url())


async def events(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """The event history so far, one event a line: number, type and, where it has one, the activity."""
    async with asyncio.timeout(10):
        return event_lines((await handle.fetch_history()).events)
