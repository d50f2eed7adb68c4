"""What a workflow's code may become while its runs wait: the columns of the replay matrix.

Each is put around a workflow, whichever it is, and gives the commands that the changed code would give. So
one table of changes stands for all agents, which stay as they are. Left out: replaying (`replay_matrix`).
"""

from typing import Any

from temporalio import workflow
from temporalio.worker import (
    ExecuteWorkflowInput,
    HandleUpdateInput,
    Interceptor,
    StartActivityInput,
    StartLocalActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from workshop_lib.agents.chat import ChatSession
from workshop_lib.agents.toolbox import Toolbox

PATCH = "pause-first"


class Change(Interceptor):
    """Code as it is, or as a subclass changes it.

    Attributes:
        title: what it is called in the matrix.
        what: the change, in a sentence.
    """

    title = "today"
    what = "the code as it is"

    async def begin(self) -> None:
        """What the workflow does before all that it has done so far."""

    async def take(self) -> None:
        """What it does with an update before anything else."""

    def activity(self, name: str, arguments: list[Any]) -> tuple[str, list[Any]]:
        """What is scheduled, by name and with arguments, in place of an activity."""
        return name, arguments

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002
    ) -> type[WorkflowInboundInterceptor]:
        """See base class."""
        change = self

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input: StartActivityInput) -> Any:  # noqa: A002
                input.activity, given = change.activity(input.activity, list(input.args))
                input.args = given
                return super().start_activity(input)

            def start_local_activity(self, input: StartLocalActivityInput) -> Any:  # noqa: A002
                input.activity, given = change.activity(input.activity, list(input.args))
                input.args = given
                return super().start_local_activity(input)

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

            async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002
                await change.begin()
                return await super().execute_workflow(input)

            async def handle_update_handler(self, input: HandleUpdateInput) -> Any:  # noqa: A002
                await change.take()
                return await super().handle_update_handler(input)

        return Inbound


class Added(Change):
    """The careless one. It is what `Deprecated` comes to as well, once its line is deleted."""

    title = "step added"
    what = "it pauses for a second first, in every run"

    async def begin(self) -> None:
        """See base class."""
        await workflow.sleep(1)


class Patched(Change):
    """The first of three releases."""

    title = "patched"
    what = "the same, `if workflow.patched(…)`"

    async def begin(self) -> None:
        """See base class."""
        if workflow.patched(PATCH):
            await workflow.sleep(1)


class Deprecated(Change):
    """The second release, when no run from before the first is left."""

    title = "deprecated"
    what = "the same in every run, after `workflow.deprecate_patch(…)`"

    async def begin(self) -> None:
        """See base class."""
        workflow.deprecate_patch(PATCH)
        await workflow.sleep(1)


class Reordered(Change):
    """An improvement, so that the first answer comes sooner. It makes a difference to runs whose first
    message came later than their start."""

    title = "order changed"
    what = "a chat looks for its tools when it starts, and not with its first message"

    async def begin(self) -> None:
        """See base class."""
        if session := _session():
            session._toolbox = await session.open_toolbox()

    async def take(self) -> None:
        """See base class."""
        if session := _session():
            await workflow.wait_condition(lambda: session._toolbox is not None)


class Removed(Change):
    """What is not needed any more."""

    title = "step removed"
    what = "a chat does not look for tools any more"

    async def take(self) -> None:
        """See base class."""
        if session := _session():
            session._toolbox = session._toolbox or Toolbox([])


class Renamed(Change):
    """A better name."""

    title = "activity renamed"
    what = "`execute_tool` is called `call_tool`"

    def activity(self, name: str, arguments: list[Any]) -> tuple[str, list[Any]]:
        """See base class."""
        return "call_tool" if name == "execute_tool" else name, arguments


class MoreArguments(Change):
    """What a replay does not compare."""

    title = "argument added"
    what = "every activity is given one argument more, which has a default"

    def activity(self, name: str, arguments: list[Any]) -> tuple[str, list[Any]]:
        """See base class."""
        return name, [*arguments, "new"]


def _session() -> ChatSession | None:
    """The run that is replayed, if it is a chat."""
    found = workflow.instance()
    return found if isinstance(found, ChatSession) else None


CHANGES: tuple[type[Change], ...] = (
    Change,
    Added,
    Patched,
    Deprecated,
    Reordered,
    Removed,
    Renamed,
    MoreArguments,
)
