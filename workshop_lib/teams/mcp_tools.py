"""An operation of a team's contract as an MCP tool that runs one of the team's workflows.

A call starts a run, or joins the one that an earlier try of the same call has started, and returns its
result. So a call may be sent twice (an answer got lost, a server or its caller died) and its work is done
once: the run's id is made of the call's idempotency key and its arguments. A call without a key is a call
of its own.

What the model can act on comes back in the team's own words; a time limit names who did not answer.
Left out: how a server listens (`mcp.server`).
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import nexusrpc
from fastmcp import Context
from fastmcp.exceptions import ToolError
from fastmcp.server.dependencies import get_context
from fastmcp.tools import Tool
from fastmcp.tools.base import ToolResult
from mcp.types import ToolAnnotations
from nexusrpc import get_service_definition
from pydantic import BaseModel, PrivateAttr, ValidationError
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError

from workshop_lib.llm.tools import ToolInputError, checked, explain_validation, spec_of
from workshop_lib.mcp.addresses import CallMeta
from workshop_lib.mcp.server import connection_of, refusal
from workshop_lib.teams.run_ids import run_id
from workshop_lib.temporal.caller import FORBIDDEN, asker, refusal_of
from workshop_lib.temporal.steps import causes

TIME_LIMIT = timedelta(seconds=60)  # of a call; a caller may ask for less
PROGRESS_EVERY = 1.0  # seconds

# A tool that only looks something up: what a client may know before it asks its user.
LOOKS_UP = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)


@dataclass(frozen=True, kw_only=True)
class Team:
    """Who does a tool's work.

    Attributes:
        name: what callers call it.
        errors: types of the errors that its activities raise for a caller to read. Of any other error,
            a bug for one, the caller is told no more than that there was one.
    """

    name: str
    service: type
    namespace: str
    task_queue: str
    errors: Collection[str] = ()


class WorkflowTool(Tool):
    """An MCP tool whose work is a workflow run. Made by `workflow_tool`."""

    _team: Team = PrivateAttr()
    _operation: nexusrpc.OperationDefinition[Any, Any] = PrivateAttr()
    _workflow: Callable[..., Any] = PrivateAttr()
    _subject: Callable[[Any], str] = PrivateAttr()

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        """Start or join the run and wait for its result.

        Raises:
            ToolError: the arguments do not fit, the run failed, or nobody answered in time.
        """
        context = get_context()
        try:
            request: BaseModel = checked(self._operation.input_type, arguments)
        except ToolInputError as error:
            raise refused(str(error)) from None
        meta = call_meta(context)
        workflow_id = run_id(self.name, self._subject(request), _request_id(meta, request))
        seconds = min(TIME_LIMIT.total_seconds(), meta.time_limit or TIME_LIMIT.total_seconds())
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                client = await connection_of(context).client()
                handle = await self._start_or_join(client, workflow_id, request, meta)
                output = await self._result(context, handle)
        except TimeoutError:
            if not limit.expired():
                raise
            raise refused(
                f"the {self._team.name} team did not answer within {seconds:.0f} s ({self._place});"
                f" its run {workflow_id} goes on"
            ) from None
        except WorkflowFailureError as error:
            if reason := refusal_of(error):
                return refusal(reason, FORBIDDEN)
            raise refused(self._words(error, workflow_id)) from None
        except RPCError:
            connection_of(context).lost()
            raise refused(
                f"Temporal, where the {self._team.name} team works, cannot be reached now"
            ) from None
        return ToolResult(
            structured_content=output.model_dump(mode="json"),
            meta={"workflow_id": workflow_id, "namespace": self._team.namespace},
        )

    async def _start_or_join(
        self, client: Client, workflow_id: str, request: BaseModel, meta: CallMeta
    ) -> WorkflowHandle[Any, BaseModel]:
        """The run of this id. A second start of it joins the first, also where that has ended."""
        # If it has ended, its result is waiting.
        with contextlib.suppress(WorkflowAlreadyStartedError):
            await client.start_workflow(
                self._workflow,
                request,
                id=workflow_id,
                task_queue=self._team.task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                memo={"idempotency_key": meta.idempotency_key} if meta.idempotency_key else None,
            )
        return client.get_workflow_handle(workflow_id, result_type=self._operation.output_type)

    async def _result(self, context: Context, handle: WorkflowHandle[Any, BaseModel]) -> BaseModel:
        """The run's result. While it runs, the caller is told every second that it does."""
        begun = time.monotonic()
        waiting = asyncio.ensure_future(handle.result())
        try:
            done: set[Any] = set()
            while not done:
                await context.report_progress(
                    time.monotonic() - begun, message=f"{handle.id} runs ({self._place})"
                )
                done, _ = await asyncio.wait({waiting}, timeout=PROGRESS_EVERY)
            return waiting.result()
        finally:
            waiting.cancel()

    def _words(self, error: WorkflowFailureError, workflow_id: str) -> str:
        """Why a run failed, for the caller: the team's words, where they are meant for a caller."""
        for cause in causes(error):
            if isinstance(cause, ApplicationError) and cause.type in self._team.errors:
                return cause.message
        return f"the {self._team.name} team could not do this; its run {workflow_id} says why"

    @property
    def _place(self) -> str:
        return f"namespace {self._team.namespace}, task queue {self._team.task_queue}"


def workflow_tool(
    team: Team,
    operation: str,
    workflow: Callable[..., Any],
    *,
    subject: Callable[[Any], str] = lambda _: "",
    annotations: ToolAnnotations = LOOKS_UP,
) -> WorkflowTool:
    """A tool for an operation of a team's contract.

    Args:
        operation: its name in the contract, which says what goes in and what comes out.
        workflow: the run method of the workflow that does it.
        subject: what a request is about, for a run id that people can read.
    """
    definition = get_service_definition(team.service)
    assert definition, f"{team.service.__name__} lacks @nexusrpc.service"
    found = definition.operation_definitions[operation]
    tool = WorkflowTool(
        **spec_of(found.name, found.input_type).model_dump(),
        output_schema=found.output_type.model_json_schema(mode="serialization"),
        annotations=annotations,
    )
    tool._team, tool._operation = team, found
    tool._workflow, tool._subject = workflow, subject
    return tool


def call_meta(context: Context) -> CallMeta:
    """What the caller has put into `_meta`.

    Raises:
        ToolError: it cannot be used.
    """
    request = context.request_context
    try:
        return CallMeta.model_validate((request.meta if request else None) or {})
    except ValidationError as error:
        raise refused(explain_validation(error).replace("arguments", "_meta", 1)) from None


def refused(reason: str) -> ToolError:
    """An error for a model to act on. Many clients show it the text alone, so the text says what it is."""
    return ToolError(f"Error: {reason}", log_level=logging.DEBUG)


def _request_id(meta: CallMeta, request: BaseModel) -> str:
    """What tells a call from others. The arguments count: a key that is used again for another question
    must not get the first one's answer. So does who is asking: nobody joins another's run."""
    if meta.idempotency_key is None:
        return uuid.uuid4().hex
    who = asker()
    told = json.dumps(
        [meta.idempotency_key, request.model_dump(mode="json"), *([who.name] if who else [])],
        sort_keys=True,
    )
    return hashlib.sha256(told.encode()).hexdigest()[:32]
