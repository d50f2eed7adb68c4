"""Ways to get at another team's figures without the right to: a table, and somebody who tries them.

Each is tried at a real door: crafted tokens at the IT team's MCP server, crafted sealed values at its Nexus
endpoint, its workflows and its queue, and at chat sessions. `Attacker.try_all` says what became of each. Left
out: agents that are talked into something, which a notebook asks by itself.
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2
import nexusrpc
from temporalio import client as client_side
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.exceptions import TimeoutError as OutOfTime
from temporalio.worker import (
    Interceptor,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)

from workshop_lib.agents.sessions import LOOPS
from workshop_lib.auth.carry import HEADER, as_header
from workshop_lib.auth.issuer import sign_in
from workshop_lib.auth.keys import ring
from workshop_lib.auth.tokens import Refused
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.lessons.forgeries import HOUR, SECRET, crafted_tokens, sealed_for
from workshop_lib.mcp.addresses import REFUSED
from workshop_lib.settings import get_settings
from workshop_lib.teams.finance.contract import FinanceService, StockPriceInput
from workshop_lib.teams.it.contract import IpInput, ITService, JiraMetricsInput
from workshop_lib.temporal.caller import REFUSALS
from workshop_lib.temporal.connect import connect

LIMIT = timedelta(seconds=20)
UNDELIVERABLE = timedelta(seconds=3)  # for what the server itself refuses, again and again


class LetIn(WorkshopError):
    """The attack was not refused."""


@dataclass(frozen=True)
class Attack:
    """One way to try it.

    Attributes:
        door: where.
        attempt: tries it. Returns the words of the refusal; raises `LetIn` where there is none.
    """

    name: str
    door: str
    attempt: "Callable[[Attacker], Awaitable[str]]"


class Attacker:
    """Somebody who can reach everything that listens, has read every history, and has signed in as Bob.

    Args:
        url: of the IT team's MCP server.
        chat_queue: where the chat's worker polls.
    """

    def __init__(self, url: str, chat_queue: str | None = None) -> None:
        self.url = url
        self.chat_queue = chat_queue or get_settings().orchestrator_queue
        self.calls: list[str] = []  # sealed values that the session has sent to teams, in order
        self.stolen = ""  # the first of them, of Alice's
        self.stolen_by = ""  # the caller's run that it was made by
        self.message = ("", "", "")  # of Alice's: workflow id, text, sealed value
        self.start = ""  # of the team's run for her
        self.work = ""  # of its activity

    async def read_histories(self, session: str) -> None:
        """Take what stands in the histories of one of Alice's turns.

        Args:
            session: id of a chat workflow that has asked the IT team for something.
        """
        client = await connect()
        handle = client.get_workflow_handle(session)
        for event in (await handle.fetch_history()).events:
            accepted = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
            if event.event_type == accepted and not self.message[0]:
                asked = event.workflow_execution_update_accepted_event_attributes.accepted_request
                payload = asked.input.header.fields[HEADER]
                text = json.loads(asked.input.args.payloads[0].data)
                self.message = (session, text, json.loads(payload.data))
            if event.event_type == EventType.EVENT_TYPE_NEXUS_OPERATION_SCHEDULED:
                call = event.nexus_operation_scheduled_event_attributes
                self.calls.append(call.nexus_header[HEADER])
            if event.event_type == EventType.EVENT_TYPE_NEXUS_OPERATION_STARTED and not self.start:
                there = event.links[0].workflow_event
                await self._read_team(there.namespace, there.workflow_id)
        self.stolen = self.calls[0]
        self.stolen_by = f"{session}/{(await handle.describe()).run_id}"

    async def _read_team(self, namespace: str, workflow_id: str) -> None:
        client = await connect(namespace)
        history = await client.get_workflow_handle(workflow_id).fetch_history()
        for event in history.events:
            started = event.workflow_execution_started_event_attributes
            if HEADER in started.header.fields:
                self.start = json.loads(started.header.fields[HEADER].data)
            asked = event.activity_task_scheduled_event_attributes
            if HEADER in asked.header.fields:
                self.work = json.loads(asked.header.fields[HEADER].data)

    async def try_all(self, attacks: "list[Attack] | None" = None) -> dict[str, str]:
        """Try every attack. Returns the words of each refusal by the attack's name.

        Raises:
            LetIn: one was not refused.
        """
        all_of_them = attacks or table()
        words = await asyncio.gather(*(one.attempt(self) for one in all_of_them))
        return {one.name: said for one, said in zip(all_of_them, words, strict=True)}

    # --- doors ----------------------------------------------------------------------------------

    async def mcp(self, token: str | None) -> str:
        """Call the IT team's tool over HTTP."""
        headers = {"accept": "application/json, text/event-stream"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        call = {"name": "jira_metrics", "arguments": SECRET.model_dump()}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
        async with httpx2.AsyncClient(trust_env=False, timeout=LIMIT.total_seconds()) as http:
            answer = await http.post(self.url, json=body, headers=headers)
        if answer.status_code == 401:
            return "401"
        text = answer.text.rpartition("data: ")[2] if "data: " in answer.text else answer.text
        result = json.loads(text).get("result") or {}
        if (result.get("_meta") or {}).get(REFUSED) in REFUSALS:
            return str(result["content"][0]["text"])
        raise LetIn(f"the MCP server answered {answer.status_code}: {answer.text[:200]}")

    async def nexus(
        self,
        value: str | None,
        request: Any = SECRET,
        operation: str = "jira_metrics",
        service: type = ITService,
        **headers: str,
    ) -> str:
        """Call a team's Nexus endpoint from outside any workflow."""
        settings = get_settings()
        endpoint = settings.it_endpoint if service is ITService else settings.finance_endpoint
        client: Any = (await connect()).create_nexus_client(service, endpoint)
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        if value is not None:
            sent[HEADER] = value
        try:
            answer = await client.execute_operation(
                operation,
                request,
                id=uuid.uuid4().hex,
                schedule_to_close_timeout=LIMIT
                if not value or value.isprintable()
                else UNDELIVERABLE,
                headers=sent,
            )
        except Exception as error:
            if value and not value.isprintable() and isinstance(error.__cause__, OutOfTime):
                return "The server cannot deliver such a header."
            return _refusal_in(error)
        raise LetIn(f"the Nexus endpoint answered {answer!r}")

    async def workflow(self, value: str | None, workflow_id: str | None = None) -> str:
        """Start the IT team's workflow directly."""
        settings = get_settings()
        client = await connect(settings.it_namespace)
        with sending(client, value) as theirs:
            handle = await theirs.start_workflow(
                "JiraMetricsWorkflow",
                SECRET,
                id=workflow_id or f"attack-{uuid.uuid4().hex}",
                task_queue=settings.it_queue,
                execution_timeout=LIMIT,
            )
            try:
                answer = await handle.result()
            except WorkflowFailureError as error:
                return _refusal_in(error)
        raise LetIn(f"the workflow answered {answer!r}")

    async def activity(self, value: str | None) -> str:
        """Have the IT team's activity run by a workflow of the attacker's own."""
        settings = get_settings()
        client = await connect(settings.it_namespace)
        queue = f"attack-{uuid.uuid4().hex}"
        with sending(client, value) as theirs:
            putting = [PutOnActivities(value)]
            async with Worker(theirs, task_queue=queue, workflows=[Borrow], interceptors=putting):
                try:
                    answer = await theirs.execute_workflow(
                        Borrow.run,
                        args=[settings.it_queue],
                        id=queue,
                        task_queue=queue,
                    )
                except WorkflowFailureError as error:
                    return _refusal_in(error)
        raise LetIn(f"the activity answered {answer!r}")

    async def update(self, value: str | None, session: str | None = None, text: str = "") -> str:
        """Send a message to a chat, as the SDK does, with this for proof."""
        client = await connect()
        if session is None:
            session = f"chat-manual-{uuid.uuid4().hex[:8]}"
            await client.start_workflow(
                LOOPS["manual"], {}, id=session, task_queue=self.chat_queue, task_timeout=LIMIT
            )
        with sending(client, value) as theirs:
            handle = theirs.get_workflow_handle(session)
            try:
                answer = await handle.execute_update(
                    "send_message", text or "Get JIRA metrics for project HR-1"
                )
            except WorkflowUpdateFailedError as error:
                return _refusal_in(error)
        raise LetIn(f"the chat answered {answer!r}")


def table() -> list[Attack]:
    """All attacks."""
    attacks = [
        Attack(f"token: {name}", "mcp", _token(make)) for name, make in crafted_tokens().items()
    ]
    now = time.time()
    sealed_values: dict[str, Callable[[Attacker], Awaitable[str]]] = {
        "no sealed value": lambda a: a.nexus(None),
        "other arguments": lambda a: a.nexus(a.stolen, JiraMetricsInput(project="DEMO-456")),
        "another operation": lambda a: a.nexus(a.stolen, IpInput(), "get_ip"),
        "another team": lambda a: a.nexus(
            a.stolen, StockPriceInput(ticker="AAPL"), "stock_price", FinanceService
        ),
        "another caller": lambda a: a.nexus(a.stolen),
        "another caller with a forged link": lambda a: a.nexus(a.stolen, nexus_link=_link(a)),
        "a forged request id": lambda a: a.nexus(a.stolen, nexus_request_id=uuid.uuid4().hex),
        "a forged link and request id": lambda a: a.nexus(
            a.stolen, nexus_link=_link(a), nexus_request_id=uuid.uuid4().hex
        ),
        "cut off": lambda a: a.nexus(a.stolen[:-8]),
        "changed": lambda a: a.nexus(a.stolen[:-8] + "AAAAAAAA"),
        "sent twice in one header": lambda a: a.nexus(f"{a.stolen},{a.stolen}"),
        "with a line break": lambda a: a.nexus(f"{a.stolen}\r\nx: y"),
        "huge": lambda a: a.nexus(a.stolen + "A" * 6000),
        "a token in its place": lambda a: a.nexus(sign_in("alice").token("it")),
        "a message's in its place": lambda a: a.nexus(a.message[2]),
        "the team's own in its place": lambda a: a.nexus(a.start),
        "expired": lambda a: a.nexus(sealed_for("it", now=now - 7200)),
        "made in the future": lambda a: a.nexus(sealed_for("it", now=now + 7200)),
        "valid for a year": lambda a: a.nexus(sealed_for("it", lifetime=365 * 24 * HOUR)),
        "without the scope": lambda a: a.nexus(sealed_for("it", scope="finance:read")),
        "sealed by another team": lambda a: a.nexus(sealed_for("it", ring("finance"))),
    }
    attacks += [Attack(f"Nexus: {name}", "nexus", try_it) for name, try_it in sealed_values.items()]
    direct: dict[str, tuple[str, Callable[[Attacker], Awaitable[str]]]] = {
        "start the team's workflow": ("workflow", lambda a: a.workflow(None)),
        "start it with a copied value": ("workflow", lambda a: a.workflow(a.start)),
        "schedule the team's activity": ("activity", lambda a: a.activity(None)),
        "schedule it with a copied value": ("activity", lambda a: a.activity(a.work)),
        "send a message without proof": ("chat", lambda a: a.update(None)),
        "send Alice's value to another session": (
            "chat",
            lambda a: a.update(a.message[2], text=a.message[1]),
        ),
        "send Alice's value with other words": (
            "chat",
            lambda a: a.update(a.message[2], a.message[0], "Get JIRA metrics for project HR-1!"),
        ),
        "send Alice's value again": (
            "chat",
            lambda a: a.update(a.message[2], a.message[0], a.message[1]),
        ),
        "send a token as proof": (
            "chat",
            lambda a: a.update(sign_in("alice").token("chat"), a.message[0]),
        ),
    }
    return attacks + [Attack(name, door, try_it) for name, (door, try_it) in direct.items()]


@workflow.defn(sandboxed=False)
class Borrow:
    """An attacker's workflow that has another team's activity run."""

    @workflow.run
    async def run(self, queue: str) -> Any:
        """Schedule it on the team's queue."""
        return await workflow.execute_activity(
            "count_issues",
            SECRET,
            task_queue=queue,
            schedule_to_close_timeout=LIMIT,
            retry_policy=RetryPolicy(maximum_attempts=1),
        )


class PutOnActivities(Interceptor):
    """Puts a value into the header of every activity that a workflow asks for."""

    def __init__(self, value: str | None) -> None:
        put = {HEADER: as_header(value)} if value is not None else {}

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input: Any) -> Any:  # noqa: A002
                input.headers = {**input.headers, **put}
                return super().start_activity(input)

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

        self._inbound = Inbound

    def workflow_interceptor_class(
        self,
        input: Any,  # noqa: A002
    ) -> type[WorkflowInboundInterceptor]:
        """Around the workflow that borrows."""
        return self._inbound


def _token(make: Callable[[], str | None]) -> Callable[[Attacker], Awaitable[str]]:
    async def attempt(attacker: Attacker) -> str:
        try:
            token = make()
        except Refused as error:  # the issuer made none
            return error.what
        return await attacker.mcp(token)

    return attempt


def _link(attacker: Attacker) -> str:
    workflow_id, _, run_id = attacker.stolen_by.rpartition("/")
    path = f"/namespaces/default/workflows/{workflow_id}/{run_id}/history"
    event = "referenceType=EventReference&eventID=5&eventType=NexusOperationScheduled"
    return f'<temporal://{path}?{event}>; type="temporal.api.common.v1.Link.WorkflowEvent"'


@contextlib.contextmanager
def sending(client: Client, value: str | None) -> Iterator[Client]:
    """A client that puts a value into every header that is sent meanwhile."""

    class Put(client_side.OutboundInterceptor):
        async def start_workflow(self, input: Any) -> Any:  # noqa: A002
            input.headers = {**input.headers, **put}
            return await super().start_workflow(input)

        async def start_workflow_update(self, input: Any) -> Any:  # noqa: A002
            input.headers = {**input.headers, **put}
            return await super().start_workflow_update(input)

    class Putting(client_side.Interceptor):
        def intercept_client(self, next: Any) -> client_side.OutboundInterceptor:  # noqa: A002
            return Put(next)

    put = {HEADER: as_header(value)} if value is not None else {}
    yield Client(
        client.service_client,
        namespace=client.namespace,
        data_converter=client.data_converter,
        interceptors=[Putting()],
    )


def _refusal_in(error: BaseException) -> str:
    """The words of a refusal.

    Raises:
        LetIn: it failed in another way, so that nobody knows whether it was let in.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, nexusrpc.HandlerError) and not cause.retryable:
            return cause.message
        if isinstance(cause, ApplicationError) and cause.type in REFUSALS:
            return cause.message
        cause = cause.__cause__
    raise LetIn(f"it failed, but was not refused: {error!r}")
