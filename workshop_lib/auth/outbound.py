"""Takes along who is asking wherever work goes out, as sealed values in headers.

A client of a person seals each message, each decision and each start of a repair; a client of a team's worker
or MCP server seals the starts of the team's own workflows, in the name of whoever it works for at the moment.
Both are one client interceptor. Workflow code seals what it asks others for: activities, other teams'
operations, its own next run. Left out: who checks it (`door`).
"""

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Interceptor,
    OutboundInterceptor,
    StartWorkflowInput,
    StartWorkflowUpdateInput,
    StartWorkflowUpdateWithStartInput,
    UpdateWithStartStartWorkflowInput,
    UpdateWithStartUpdateWorkflowInput,
    WorkflowHandle,
    WorkflowUpdateHandle,
)
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.converter import PayloadConverter
from temporalio.worker import (
    ContinueAsNewInput,
    StartActivityInput,
    StartNexusOperationInput,
    WorkflowOutboundInterceptor,
)

from workshop_lib.auth.issuer import Grant, scopes_for, signed_in
from workshop_lib.auth.keys import fresh
from workshop_lib.auth.sealed import Binding, Who, digest, seal
from workshop_lib.auth.tokens import Refused
from workshop_lib.settings import get_settings
from workshop_lib.temporal.caller import Asker, asked_by
from workshop_lib.temporal.search_attributes import SESSION_OWNER, keyword

if TYPE_CHECKING:
    from workshop_lib.auth.door import WorkflowDoor

HEADER = "workshop-asker"  # in Temporal's headers and in Nexus'
# Who checks an update or the start of a workflow that a person asks for. Others are checked by nobody.
CHECKED_UPDATES = {
    **dict.fromkeys(("send_message", "cancel_turn", "set_budget", "accept_tool"), "chat"),
    "decide": "repair",
}
CHECKED_STARTS = {"OrderRepair": "repair", "ProactiveRepair": "repair"}
TEAMS = {"ITService": "it", "FinanceService": "finance"}  # whose a Nexus service is
MCP_ACTIVITIES = "temporalio.mcp."
LIFETIME = 3600.0  # seconds that a message may take
STARTS_WITHIN = (
    120.0  # seconds in which the server must have taken a start; its work may take longer
)
GRACE = 60.0  # seconds that a step may take beyond its own limit

Make = Callable[[str, Binding, float], str | None]  # audience, binding, seconds → a value, or none

_who: ContextVar[Who | None] = ContextVar("who", default=None)


def who_asks() -> Who | None:
    """Whose work this task does; None where nobody has proved who it is."""
    return _who.get()


@contextlib.contextmanager
def acting_for(who: Who | None, at: float = 0.0) -> Iterator[None]:
    """While the block runs, this task and those that it starts work for somebody, or for nobody known.

    Args:
        at: as an `Asker` has it.
    """
    token = _who.set(who)
    try:
        with asked_by(replace(who.asker, at=at) if who else Asker("")):
            yield
    finally:
        _who.reset(token)


def as_header(value: str) -> Payload:
    """A sealed value as one of Temporal's headers."""
    return PayloadConverter.default.to_payload(value)


def from_header(headers: Any) -> Any:
    """What stands in the header: a sealed value, nothing, or anything that a caller has put there."""
    payload = headers.get(HEADER)
    try:
        return PayloadConverter.default.from_payload(payload) if payload else None
    except Exception:
        return "?"  # it is there, and no sealed value


class Person(Interceptor):
    """Put around a client: what is sent with it is sent by this person.

    Args:
        grant: of the person.
    """

    def __init__(self, grant: Grant) -> None:
        self._grant = grant

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        """Seal what is checked at the other end."""
        return Sealing(next, self._grant.seal, lambda: self._grant.name)


def at_the_keyboard() -> list[Interceptor]:
    """Interceptors of a client that the settings' user uses; none where identity is off.

    Raises:
        WorkshopError: nobody of that name can sign in.
    """
    settings = get_settings()
    if settings.identity == "off":
        return []
    return [Person(signed_in(settings.state_dir, settings.user_name))]


def keyboard_user() -> Asker | None:
    """The settings' user, as the work that is asked for sees it; None where identity is off.

    Raises:
        WorkshopError: nobody of that name can sign in.
    """
    settings = get_settings()
    if settings.identity == "off":
        return None
    return signed_in(settings.state_dir, settings.user_name).asker


class Sealing(OutboundInterceptor):
    """Puts a sealed value on updates and starts, and the name that is in it where a run says whose it is.

    Args:
        make: makes it; None leaves the call as it is.
        name: whose it is made in.
        own: the audience of all starts, where they are of a team's own workflows.
    """

    def __init__(
        self,
        next: OutboundInterceptor,  # noqa: A002
        make: Make,
        name: Callable[[], str | None],
        own: str | None = None,
    ) -> None:
        super().__init__(next)
        self._make, self._name, self._own = make, name, own

    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:  # noqa: A002
        """Seal a start."""
        if self._seal_start(input) and self._own:
            # One call is one run, also where that has ended: whoever sends its value again runs nothing.
            input.id_reuse_policy = WorkflowIDReusePolicy.REJECT_DUPLICATE
        return await super().start_workflow(input)

    async def start_workflow_update(
        self,
        input: StartWorkflowUpdateInput,  # noqa: A002
    ) -> WorkflowUpdateHandle[Any]:
        """Seal an update."""
        self._seal_update(input, input.id)
        return await super().start_workflow_update(input)

    async def start_update_with_start_workflow(
        self,
        input: StartWorkflowUpdateWithStartInput,  # noqa: A002
    ) -> WorkflowUpdateHandle[Any]:
        """Seal both."""
        try:
            self._seal_start(input.start_workflow_input)
            self._seal_update(input.update_workflow_input, input.start_workflow_input.id)
        except Refused as error:
            input._on_start_error(error)  # whoever waits for the start would wait for ever
            raise
        return await super().start_update_with_start_workflow(input)

    def _seal_start(self, call: StartWorkflowInput | UpdateWithStartStartWorkflowInput) -> bool:
        found_by, name = call.search_attributes, self._name()
        if name and isinstance(found_by, TypedSearchAttributes):
            mine = SearchAttributePair(SESSION_OWNER, keyword(name))
            pairs = [mine if pair.key == mine.key else pair for pair in found_by]
            call.search_attributes = TypedSearchAttributes(pairs)
        audience = self._own or CHECKED_STARTS.get(call.workflow)
        bound = Binding(f"start:{call.workflow}", call.id, digest(call.args))
        return self._put(call, audience, bound, STARTS_WITHIN)

    def _seal_update(
        self, call: StartWorkflowUpdateInput | UpdateWithStartUpdateWorkflowInput, workflow_id: str
    ) -> None:
        call.update_id = call.update_id or uuid.uuid4().hex
        audience = CHECKED_UPDATES.get(call.update)
        bound = Binding(f"update:{call.update}", workflow_id, digest(call.args), call.update_id)
        self._put(call, audience, bound, LIFETIME)

    def _put(self, call: Any, audience: str | None, bound: Binding, lifetime: float) -> bool:
        value = self._make(audience, bound, lifetime) if audience else None
        if value:
            call.headers = {**call.headers, HEADER: as_header(value)}
        return value is not None


class WorkflowSealing(WorkflowOutboundInterceptor):
    def __init__(self, next: WorkflowOutboundInterceptor, inbound: "WorkflowDoor") -> None:  # noqa: A002
        super().__init__(next)
        self._inbound = inbound
        self._calls = 0

    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002
        """Seal, for the activity's own check, whose work it is; for an effect, who has approved of it."""
        door, name = self._inbound.door, input.activity
        who = who_asks()
        if door.party == "repair":
            who = self._inbound.approver or who
        if who and (door.is_checked(name) or name.startswith(MCP_ACTIVITIES)):
            bound = Binding(
                f"activity:{name}", workflow.info().workflow_id, digest(tuple(input.args))
            )
            limit = input.schedule_to_close_timeout or input.start_to_close_timeout
            value = self._seal(door.party, who, bound, limit)
            input.headers = {**input.headers, HEADER: as_header(value)}
        return super().start_activity(input)

    async def start_nexus_operation(
        self,
        input: StartNexusOperationInput[Any, Any],  # noqa: A002
    ) -> workflow.NexusOperationHandle[Any]:
        """Seal a call to another team, in the name of whoever asks."""
        self._calls += 1
        who, team = who_asks(), TEAMS.get(input.service)
        if who and team in self._inbound.door.others:
            whose = Who(sub=who.sub, act="chat-agent", scope=scopes_for(team, who.scope.split()))
            call = hashlib.sha256(f"{workflow.info().run_id}/{self._calls}".encode()).hexdigest()
            what = f"nexus:{input.service}/{input.operation_name}"
            bound = Binding(what, "", digest(input.input), call[:32])
            value = self._seal(team, whose, bound, input.schedule_to_close_timeout)
            input.headers = {**(input.headers or {}), HEADER: value}
        return await super().start_nexus_operation(input)

    def continue_as_new(self, input: ContinueAsNewInput) -> Any:  # noqa: A002
        """The next run is for whoever has started the first."""
        info = workflow.info()
        if who := who_asks():
            name = input.workflow or info.workflow_type
            bound = Binding(f"start:{name}", info.workflow_id, digest(input.args))
            value = self._seal(self._inbound.door.party, who, bound, None)
            input.headers = {**input.headers, HEADER: as_header(value)}
        return super().continue_as_new(input)

    def _seal(self, audience: str, who: Who, bound: Binding, limit: timedelta | None) -> str:
        door, info = self._inbound.door, workflow.info()
        keys = door.others.get(audience, door.keys)
        lifetime = (limit.total_seconds() if limit else 24 * 3600) + GRACE
        run = self._inbound.plan or f"{info.workflow_id}/{info.run_id}"
        return seal(keys, audience, who, bound, now=workflow.time(), lifetime=lifetime, run=run)


def seal_for_who_asks(audience: str, bound: Binding, lifetime: float) -> str | None:
    """A sealed value in the name of whoever this task works for; None where that is nobody."""
    who = who_asks()
    return seal(fresh(audience), audience, who, bound, lifetime=lifetime) if who else None
