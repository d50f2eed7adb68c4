"""A party's door: checks who is asking wherever work comes in.

One interceptor for the client and the worker of a party (the chat, a team, the repairs). On a dev server
anybody can call a Nexus endpoint, start a workflow and schedule an activity on a queue, so each of the
three is checked by itself, against a value that is bound to exactly this call. What is refused is refused
for good.

In workflow code all of it is deterministic: sealed values are made with workflow time and keys that are in
memory. A replay opens old values too, with keys that make nothing any more.

Left out: how it is taken along to where the work goes on (`outbound`), MCP (`mcp`), and what a person may do,
which stands in the value.
"""

import dataclasses
import time
import urllib.parse
from functools import partial
from typing import Any, ClassVar

import nexusrpc
from nexusrpc.handler import StartOperationResultAsync, StartOperationResultSync
from temporalio import activity, workflow
from temporalio import client as client_side
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteNexusOperationStartInput,
    ExecuteWorkflowInput,
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    NexusOperationInboundInterceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from workshop_lib.auth.issuer import live_scopes
from workshop_lib.auth.keys import ring
from workshop_lib.auth.outbound import (
    CHECKED_UPDATES,
    HEADER,
    TEAMS,
    Sealing,
    WorkflowSealing,
    acting_for,
    from_header,
    seal_for_who_asks,
    who_asks,
)
from workshop_lib.auth.sealed import Binding, Contents, Who, check, digest, unseal
from workshop_lib.auth.tokens import Refused, require
from workshop_lib.settings import get_settings
from workshop_lib.temporal.caller import FORBIDDEN
from workshop_lib.temporal.search_attributes import SESSION_OWNER, keyword

EFFECTS = frozenset({"order_inventory", "request_approval", "request_payment_update"})
MAY_DECIDE = frozenset({"orders:approve", "orders:auto-approve"})


def doors(party: str) -> list[Any]:
    """Makers of the interceptors of a party's client and worker; none where identity is off."""
    return [] if get_settings().identity == "off" else [partial(Door, party)]


class Door(client_side.Interceptor, Interceptor):
    """The door of one party.

    Args:
        party: one of `keys.AUDIENCES`.
    """

    def __init__(self, party: str) -> None:
        self.party = party
        self.keys = ring(party)
        # A chat seals for the teams, and a team for nobody else.
        self.others = {name: ring(name) for name in TEAMS.values()} if party == "chat" else {}
        self._workflow_class = type(f"_{party}_door", (WorkflowDoor,), {"door": self})

    def intercept_client(
        self,
        next: client_side.OutboundInterceptor,  # noqa: A002
    ) -> client_side.OutboundInterceptor:
        """Starts of the party's own workflows."""
        return Sealing(next, seal_for_who_asks, _name_of_who_asks, self.party)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Activities, before they run."""
        return _ActivityDoor(next, self)

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002
    ) -> type[WorkflowInboundInterceptor]:
        """Starts and updates of workflows, and what they ask others for."""
        return self._workflow_class

    def intercept_nexus_operation(
        self,
        next: NexusOperationInboundInterceptor,  # noqa: A002
    ) -> NexusOperationInboundInterceptor:
        """Operations, before they begin."""
        return _NexusDoor(next, self)

    def opened(self, value: Any, bound: Binding, now: float) -> Contents:
        """A sealed value, checked.

        Raises:
            Refused: it does not count for this call.
        """
        inside = unseal(self.keys, self.party, value)
        check(inside, bound, now)
        return inside

    @property
    def is_team(self) -> bool:
        """Whether it works for other parties only, so that nothing of it may begin without proof."""
        return self.party in TEAMS.values()

    def is_checked(self, activity_type: str) -> bool:
        """Whether an activity runs only with proof."""
        return self.is_team or (self.party == "repair" and activity_type in EFFECTS)


class _NexusDoor(NexusOperationInboundInterceptor):
    def __init__(self, next: NexusOperationInboundInterceptor, door: Door) -> None:  # noqa: A002
        super().__init__(next)
        self._door = door

    async def execute_nexus_operation_start(
        self,
        input: ExecuteNexusOperationStartInput,  # noqa: A002
    ) -> StartOperationResultSync[Any] | StartOperationResultAsync:
        ctx, door = input.ctx, self._door
        bound = Binding(f"nexus:{ctx.service}/{ctx.operation}", "", digest(input.input))
        try:
            value = ctx.headers.get(HEADER)
            inside = door.opened(value, bound, time.time())
            require(inside.who.asker, f"{door.party}:read")
            _look_at_links(ctx, inside)
        except Refused as error:
            kind = "UNAUTHORIZED" if error.kind == FORBIDDEN else "UNAUTHENTICATED"
            raise nexusrpc.HandlerError(
                error.what, type=nexusrpc.HandlerErrorType[kind], retryable_override=False
            ) from None
        # What the team makes its run's id of: a request's own id can be chosen by the caller.
        input.ctx = dataclasses.replace(ctx, request_id=inside.call)
        try:
            with acting_for(inside.who):
                return await super().execute_nexus_operation_start(input)
        except WorkflowAlreadyStartedError:
            raise nexusrpc.HandlerError(
                "This call was made before; whoever made it has its result.",
                type=nexusrpc.HandlerErrorType.UNAUTHORIZED,
                retryable_override=False,
            ) from None


class _ActivityDoor(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, door: Door) -> None:  # noqa: A002
        super().__init__(next)
        self._door = door

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        door, info = self._door, activity.info()
        for keys in (door.keys, *door.others.values()):
            keys.refresh()  # for workflow code, which may read no files
        who = None
        try:
            if HEADER in input.headers or door.is_checked(info.activity_type):
                bound = Binding(
                    f"activity:{info.activity_type}", info.workflow_id or "", digest(input.args)
                )
                who = door.opened(from_header(input.headers), bound, time.time()).who
                if door.party == "repair" and not MAY_DECIDE & who.asker.scopes:
                    raise Refused(f"{who.sub} may approve no repairs.", FORBIDDEN)
                if door.party == "chat":
                    live_scopes(who.grant, who.sub)
        except Refused as error:
            raise as_failure(error) from None
        with acting_for(who):
            return await super().execute_activity(input)


class WorkflowDoor(WorkflowInboundInterceptor):
    door: ClassVar[Door]

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        """Put the other half around what the workflow asks for."""
        self.approver: Who | None = None
        self.plan = ""
        super().init(WorkflowSealing(outbound, self))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002
        """Check who has started it."""
        value, info = from_header(input.headers), workflow.info()
        who = None
        # A schedule's runs are nobody's request: somebody who has signed in decides about them all the same.
        scheduled = "TemporalScheduledById" in info.search_attributes
        if value or self.door.is_team or (self.door.party == "repair" and not scheduled):
            bound = Binding(f"start:{info.workflow_type}", info.workflow_id, digest(input.args))
            try:
                # When the server took it: a worker may come to it much later.
                who = self.door.opened(value, bound, info.workflow_start_time.timestamp()).who
                if self.door.party == "repair":
                    require(who.asker, "orders:start")
                    _look_at_owner(who)
            except Refused as error:
                raise as_failure(error) from None
        with acting_for(who):
            return await super().execute_workflow(input)

    def handle_update_validator(self, input: HandleUpdateInput) -> None:  # noqa: A002
        """Refuse before anything is recorded."""
        if CHECKED_UPDATES.get(input.update) != self.door.party:
            super().handle_update_validator(input)
            return
        where = workflow.info().workflow_id
        bound = Binding(f"update:{input.update}", where, digest(input.args), input.id)
        try:
            inside = self.door.opened(from_header(input.headers), bound, workflow.time())
            if self.door.party == "chat":
                require(inside.who.asker, "chat:use")
        except Refused as error:
            raise as_failure(error) from None
        with acting_for(inside.who, inside.iat):
            super().handle_update_validator(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:  # noqa: A002
        """What was accepted is done for whoever asked."""
        if CHECKED_UPDATES.get(input.update) != self.door.party:
            return await super().handle_update_handler(input)
        try:  # the validator has checked it, perhaps long ago
            inside = unseal(self.door.keys, self.door.party, from_header(input.headers))
            who, at = inside.who, inside.iat
        except Refused:
            who, at = None, 0.0
        with acting_for(who, at):
            result = await super().handle_update_handler(input)
        if self.door.party == "repair":
            self.approver, self.plan = who, result.plan_digest
        return result

    async def handle_signal(self, input: HandleSignalInput) -> None:  # noqa: A002
        """A signal carries no proof."""
        with acting_for(None):
            await super().handle_signal(input)


def as_failure(error: Refused) -> ApplicationError:
    """A refusal as a failure that is not retried."""
    return ApplicationError(error.what, type=error.kind, non_retryable=True)


def _look_at_owner(who: Who) -> None:
    """Refuse a start that is listed as another's, and so not among what waits for that one's decision.

    Raises:
        Refused: it is.
    """
    owner = workflow.info().typed_search_attributes.get(SESSION_OWNER)
    if owner not in (None, keyword(who.sub)):
        raise Refused(f"{who.sub} starts it in the name of {owner}.", FORBIDDEN)


def _name_of_who_asks() -> str | None:
    who = who_asks()
    return who.sub if who else None


def _look_at_links(ctx: nexusrpc.handler.StartOperationContext, inside: Contents) -> None:
    """Refuse a value that another caller than the one it was made by sends, where the links say so.

    A hint, no proof: a caller can put links of its own there. It then finds the run that there is.

    Raises:
        Refused: the links are another caller's.
    """
    if not ctx.inbound_links:
        return
    # /namespaces/<namespace>/workflows/<workflow id>/<run id>/history
    paths = [urllib.parse.urlsplit(link.url).path.split("/") for link in ctx.inbound_links]
    if inside.run not in ["/".join(map(urllib.parse.unquote, path[4:6])) for path in paths]:
        raise Refused("The sealed value was made by another caller.")
