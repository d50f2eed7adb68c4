"""How a client talks to chat sessions: start or rejoin one by name, send, end.

A session's workflow id is `chat-<loop>-<name>`, so a name that is used again finds its session. Left out:
what stands at the other end (`chat`), and lists (`session_list`).
"""

import asyncio
import contextlib
import uuid
from datetime import timedelta
from typing import Any

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.agents.chat import ChatSession, ChatStart, Reply, TranscriptLine
from workshop_lib.agents.conversation.results import copy_results
from workshop_lib.agents.conversation.spending import Budget, Spending
from workshop_lib.agents.deleting import Deletion, delete_session
from workshop_lib.agents.held_tools import HeldTool
from workshop_lib.agents.refusals import (
    EffectsRemain,
    MessageRefused,
    NothingToStop,
    check_budget,
    check_message,
    has_ended,
    no_answer,
    no_reply,
)
from workshop_lib.agents.session_reader import REMOVED, fork_point, runs_of
from workshop_lib.agents.session_state import Effect
from workshop_lib.errors import WorkshopError
from workshop_lib.settings import get_settings
from workshop_lib.temporal import client_retries, tracing
from workshop_lib.temporal.names import check_name
from workshop_lib.temporal.search_attributes import SESSION_OWNER, found_by
from workshop_lib.temporal.steps import TASK_TIMEOUT, reason_of

__all__ = [
    "LOOPS",
    "ChatClient",
    "EffectsRemain",
    "MessageRefused",
    "NothingToStop",
    "check_message",
]

# The loop's name on the command line, and its workflow type.
LOOPS = {"manual": "ManualChat", "sdk": "SdkChat", "mcp": "McpChat"}


class ChatClient:
    """One chat session, seen from outside.

    Args:
        client: connected to the orchestrator's namespace.
        loop: a key of `LOOPS`.
        session: its name; None for a new one.
        task_queue: where the chat's worker polls; the orchestrator's by default.
        start: what a new session is started with; the user's name is filled in.

    Raises:
        WorkshopError: there is no such loop, or the name is none.
    """

    def __init__(
        self,
        client: Client,
        loop: str = "manual",
        session: str | None = None,
        *,
        task_queue: str | None = None,
        start: ChatStart | None = None,
    ) -> None:
        if loop not in LOOPS:
            raise WorkshopError(f"There is no loop {loop!r}.", expected=" or ".join(LOOPS))
        self._client = client
        self._loop = loop
        self._task_queue = task_queue or get_settings().orchestrator_queue
        self._start = start or ChatStart()
        check_budget(self._start.budget)
        if not self._start.user:
            self._start = self._start.model_copy(update={"user": get_settings().user_name})
        self.session = uuid.uuid4().hex[:8] if session is None else check_name(session, "session")
        self.workflow_id = f"chat-{loop}-{self.session}"
        self._begun = False
        self._unanswered: list[str] = []  # ids of the messages that this client waits for, or did

    @property
    def handle(self) -> WorkflowHandle[ChatSession, int]:
        """The session's workflow."""
        return self._client.get_workflow_handle(self.workflow_id, result_type=int)

    @tracing.turn
    async def send(self, message: str, *, timeout: timedelta = timedelta(minutes=5)) -> Reply:
        """Send a message and wait for its reply; starts the session where it does not run yet.

        Sent again after it was given up (a cell that was interrupted), it is still one message: that one's
        reply is waited for.

        Raises:
            MessageRefused: the session has ended, or the message is empty or too long.
            WorkshopError: no reply within `timeout`. The message is not lost: the turn goes on.
        """
        check_message(message)

        async def attempt(update_id: str, limit: timedelta) -> Reply:
            if update_id not in self._unanswered:
                self._unanswered.append(update_id)
            reply = await self._send(message, update_id, limit)
            if update_id in self._unanswered:  # with it, what was sent before is answered too
                del self._unanswered[: self._unanswered.index(update_id) + 1]
            return reply

        try:
            return await client_retries.update(self.workflow_id, message, attempt, timeout)
        except TimeoutError:
            raise no_reply(self.workflow_id, timeout) from None
        except WorkflowUpdateFailedError as error:
            raise MessageRefused(reason_of(error)) from None

    async def _send(self, message: str, update_id: str, timeout: timedelta) -> Reply:
        """One attempt to send; errors that a person can act on are said as such."""
        how: dict[str, Any] = {"id": update_id, "result_type": Reply, "rpc_timeout": timeout}
        try:
            reply: Reply
            if self._begun:
                reply = await self.handle.execute_update("send_message", message, **how)
                return reply
            # In one request with the start of the session, where it does not run yet.
            options = await self._start_options()
            start = WithStartWorkflowOperation[ChatSession, int](**options)
            try:
                reply = await self._client.execute_update_with_start_workflow(
                    "send_message", message, start_workflow_operation=start, **how
                )
            except Exception:
                # The failure is also kept for whoever asks for the handle; fetch it, or asyncio complains.
                with contextlib.suppress(Exception):
                    await start.workflow_handle()
                raise
            self._begun = True
            return reply
        except WorkflowAlreadyStartedError:
            raise has_ended(self.session) from None
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise has_ended(self.session) from None
            raise

    async def begin(self, *, new: bool = False) -> None:
        """Start the session without a message, where it does not run yet.

        Args:
            new: it must be one that this call starts.

        Raises:
            MessageRefused: the session has ended; or there is one, where it must be new.
            WorkshopError: the server did not start it within ten seconds.
        """
        if self._begun:
            return
        limit = timedelta(seconds=10)
        try:
            async with asyncio.timeout(limit.total_seconds()):
                options = await self._start_options()
                if new:
                    options["id_conflict_policy"] = WorkflowIDConflictPolicy.FAIL
                await self._client.start_workflow(**options)
        except WorkflowAlreadyStartedError:
            if new:
                raise MessageRefused(
                    f"There is a session {self.session!r} already.", fix="take another name."
                ) from None
            raise has_ended(self.session) from None
        except TimeoutError:
            raise no_reply(self.workflow_id, limit) from None
        self._begun = True

    async def _start_options(self) -> dict[str, Any]:
        return {
            "workflow": LOOPS[self._loop],
            "arg": self._start,
            "id": self.workflow_id,
            "task_queue": self._task_queue,
            "id_conflict_policy": WorkflowIDConflictPolicy.USE_EXISTING,
            # A session that has ended stays ended; its name is not used twice.
            "id_reuse_policy": WorkflowIDReusePolicy.REJECT_DUPLICATE,
            "memo": {"loop": self._loop, "session": self.session},
            "search_attributes": await found_by(self._client, {SESSION_OWNER: self._start.user}),
            "task_timeout": TASK_TIMEOUT,
        }

    async def transcript(self) -> list[TranscriptLine]:
        """The conversation so far, to its first line; empty for a session that has not begun.

        Of a session that has gone on in new runs all of them are read. What the server has removed of it by
        now is one line, a note.

        Raises:
            WorkshopError: no worker answered within ten seconds, or longer where the history is long.
        """
        pages: list[list[TranscriptLine]] = []
        try:
            async for run in runs_of(self._client, self.workflow_id):
                pages.insert(0, await run.transcript())
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise no_answer(self.session, error) from None
            if pages:
                pages.insert(0, [REMOVED])
        return [line for page in pages for line in page]

    async def stop(self, *, timeout: timedelta = timedelta(seconds=20)) -> Reply:
        """Stop the turn under way. Returns the reply that its message gets, which says how far it came.

        What tools have found stays, and the next turn knows of it. What was under way is not waited for and
        may go on elsewhere; the reply names it. Stopped again after it was given up, it is still one stop;
        messages that wait behind are answered. Where this client has sent messages that it knows no reply
        of, the first of these is meant and no other, however late the stop comes; else whichever is answered.

        Raises:
            NothingToStop: no message is being answered, or the one that is meant was answered already.
            WorkshopError: nobody took it within `timeout`.
        """
        refusal = nothing = NothingToStop(
            f"No message of the session {self.session!r} is being answered, so there is nothing to stop."
        )
        for message in [*self._unanswered] or [""]:
            what, named = f"(stop {message})", [message] if message else []
            try:
                reply: Reply = await self._ask(
                    what, ChatSession.cancel_turn, *named, timeout=timeout, absent=nothing
                )
                return reply
            except NothingToStop as error:
                refusal = error
        raise refusal

    async def set_budget(
        self, budget: Budget, *, timeout: timedelta = timedelta(seconds=20)
    ) -> Spending:
        """Say what the session may cost in all, what it has cost included. Returns where it stands.

        A message that waits for its budget goes on where there is room now. Starts the session, if need be.

        Raises:
            MessageRefused: it is no budget, or the session has ended.
            WorkshopError: nobody took it within `timeout`.
        """
        check_budget(budget)
        await self.begin()
        said, gone = f"({budget!r})", has_ended(self.session)
        found: Spending = await self._ask(
            said, ChatSession.set_budget, budget, timeout=timeout, absent=gone
        )
        return found

    async def accept_tool(
        self, tool: str, fingerprint: str = "", *, timeout: timedelta = timedelta(seconds=20)
    ) -> HeldTool:
        """Believe a tool of an MCP server that is held back, since it has changed. Returns it.

        Args:
            tool: its name, or its team's and its name ("finance/stock_price").
            fingerprint: the beginning of the one that was looked at, as `held_tools` shows it.

        Raises:
            MessageRefused: no such tool is held back, or it has changed again; or the session has ended.
        """
        what, gone = f"(accept {tool} {fingerprint})", has_ended(self.session)
        given = (what, "accept_tool", tool, fingerprint)
        return HeldTool(**await self._ask(*given, timeout=timeout, absent=gone))

    async def held_tools(self) -> list[HeldTool]:
        """The tools of MCP servers that have changed, and wait for `accept_tool`. Raises as `spending`."""
        return await self._read("held_tools", list[HeldTool]) if self._loop == "mcp" else []

    async def _ask(
        self, what: str, update: Any, *arguments: Any, timeout: timedelta, absent: WorkshopError
    ) -> Any:
        """An update's answer, asked for again under one id where it got lost.

        Args:
            what: as for `client_retries.update`.
            absent: what is raised where there is no such session.
        """

        async def attempt(update_id: str, limit: timedelta) -> Any:
            how: dict[str, Any] = {"id": update_id, "rpc_timeout": limit}
            return await self.handle.execute_update(update, args=arguments, **how)

        try:
            return await client_retries.update(self.workflow_id, what, attempt, timeout)
        except WorkflowUpdateFailedError as error:
            if getattr(error.cause, "type", "") == "NothingToStop":
                raise NothingToStop(reason_of(error)) from None
            raise MessageRefused(reason_of(error)) from None
        except TimeoutError:
            raise no_reply(self.workflow_id, timeout) from None
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise absent from None
            raise

    async def spending(self) -> Spending:
        """What the session has cost so far, and what it may cost.

        Raises:
            WorkshopError: nobody answered.
        """
        return Spending.model_validate(await self._read("spending", Spending))

    async def _read(self, query: str, kind: Any) -> Any:
        try:
            return await client_retries.query(self.handle, query, kind)
        except RPCError as error:
            raise no_answer(self.session, error) from None

    async def fork(
        self,
        turn: int,
        message: str,
        *,
        session: str | None = None,
        confirmed: bool = False,
        timeout: timedelta = timedelta(minutes=5),
    ) -> "tuple[ChatClient, Reply]":
        """Change an earlier message: a new session goes on from the end of the turn before it.

        Nothing is paid again for what comes before, and this session stays as it is. What its tools have
        changed from that turn on stays done: where there is such a thing, it has to be confirmed.

        Args:
            turn: the number of the message that `message` takes the place of; the first is 1.
            session: the new session's name; None for one that is made up.
            confirmed: the effects that `effects_from(turn)` lists have been seen.

        Returns:
            The new session, and the reply to the message.

        Raises:
            EffectsRemain: there are effects, and they are not confirmed.
            WorkshopError: there is no such turn, or the server does not keep it any more.
            MessageRefused: as `send`; or there is a session of the new name.
        """
        check_message(message)
        start, effects = await self._fork_point(turn)
        if effects and not confirmed:
            raise EffectsRemain(
                "From that turn on something was changed, and stays so: "
                + "; ".join(f"turn {effect.turn}, {effect.what}" for effect in effects),
                expected="that you have seen it.",
                fix=f"`fork({turn}, …, confirmed=True)`, or `--yes` in a terminal.",
            )
        fork = ChatClient(
            self._client, self._loop, session, task_queue=self._task_queue, start=start
        )
        await fork.begin(new=True)
        copy_results(self.workflow_id, fork.workflow_id)
        return fork, await fork.send(message, timeout=timeout)

    async def effects_from(self, turn: int) -> list[Effect]:
        """What tools may have changed from a turn on, oldest first. Raises as `fork`."""
        return (await self._fork_point(turn))[1]

    async def _fork_point(self, turn: int) -> tuple[ChatStart, list[Effect]]:
        try:
            return await fork_point(self._client, self.workflow_id, self.session, turn)
        except RPCError as error:
            raise no_answer(self.session, error) from None

    async def end(self) -> None:
        """End the session; harmless where it has ended or never began."""
        try:
            await self.handle.signal(ChatSession.end_chat, rpc_timeout=timedelta(seconds=10))
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise

    async def delete(self) -> Deletion:
        """Delete the session with all of its runs, whatever it is doing.

        Returns:
            What remains elsewhere, and until when.

        Raises:
            WorkshopError: there is none.
        """
        deletion = await delete_session(self._client, self.workflow_id)
        self._begun = False
        return deletion
