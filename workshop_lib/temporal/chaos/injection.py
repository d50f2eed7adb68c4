"""Faults of an experiment, made to happen in a worker.

What is outermost loses reports and heartbeats, and kills; what is innermost lets a call fail before or after
it is made, so that everything between hears of it as of a real failure. A request to the model asks
`model_strike`.

Left out: which fault is due (`plan`), and starting again what was killed (`lab.workers.chaos`).
"""

import asyncio
import os
import signal
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from nexusrpc import HandlerError, HandlerErrorType
from nexusrpc.handler import StartOperationResultAsync, StartOperationResultSync
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.plugin import SimplePlugin
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteNexusOperationStartInput,
    Interceptor,
    NexusOperationInboundInterceptor,
    StartNexusOperationInput,
    WorkerConfig,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from workshop_lib.machine.records import live_record
from workshop_lib.settings import get_settings
from workshop_lib.temporal.chaos.experiment import Experiment
from workshop_lib.temporal.chaos.plan import Fault, Place
from workshop_lib.temporal.places import (
    STEP_HEADER,
    Step,
    Where,
    activity_step,
    operation_step,
    watched,
)
from workshop_lib.temporal.steps import heartbeating

if TYPE_CHECKING:
    from workshop_lib.temporal.worker import WorkerSpec

PLANNED = "PlannedFault"  # the type of a failure that a plan calls for
LOCAL_TOOLS = "execute_tool"  # the activity that runs local tools; its argument has the tool's name
MCP_PREFIX = "temporalio.mcp."  # of the plugin's activities
LONGEST_WAIT = timedelta(seconds=60)  # that a run may spend on noticing what is lost


def chaos_options(experiment: Experiment, spec: "WorkerSpec") -> dict[str, Any]:
    """The options of a worker that an experiment is made with."""
    experiment.serves(
        [
            *spec.workflow_names,
            *spec.activity_names,
            *spec.plugin_activity_names,
            *spec.operation_names,
        ]
    )
    for number, fault in enumerate(experiment.plan.faults):
        if fault.place is Place.MODEL and not get_settings().model.offline:
            why = f"{get_settings().model.name} is a real model, whose failures are its own"
            experiment.kept(number, Step(spec.name), why)
    options = watched(_Killer(experiment))
    options["interceptors"] = (_Outermost(experiment), *options["interceptors"])
    options["plugins"] = [_Innermost(experiment)]
    return options


class _Killer:
    """Told of every place in the worker's work; kills there."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._inside = any(fault.where is Where.ACTIVITY_INSIDE for fault in experiment.plan.faults)

    def awaits(self, where: Where, name: str) -> bool:
        return self._inside

    def pass_by(self, where: Where, step: Step) -> None:
        experiment = self._experiment
        for place in (Place.SERVER, Place.WORKER):
            number = experiment.strike(place, [step.name], step, where=where)
            if number is None:
                continue
            if place is Place.WORKER and not experiment.may_kill:
                why = "this worker is a thread, and the notebook would die with it"
                experiment.kept(number, step, f"{why} (start_process makes one that can be killed)")
            elif place is Place.WORKER:
                experiment.struck(number, step)
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                self._kill_server(number, step)

    def _kill_server(self, number: int, step: Step) -> None:
        record = live_record(get_settings().state_dir)
        if not record:
            self._experiment.kept(number, step, "the server is not this project's own")
        elif "--db-filename" not in record.get("command", ()):
            self._experiment.kept(
                number, step, "this server keeps all in memory, and would forget it"
            )
        else:
            self._experiment.struck(number, step)
            os.kill(record["pid"], signal.SIGKILL)


class ModelStrike(NamedTuple):
    """A fault that a request to the model meets.

    Attributes:
        kind: one of `plan.MODEL_KINDS`.
        happens: to be called when it takes effect.
    """

    kind: str
    happens: Callable[[], None]


class _AtWork:
    """An activity under way, as requests to the model see it."""

    def __init__(self, experiment: Experiment, step: Step) -> None:
        self._experiment, self._step = experiment, step
        self._requests = 0

    def strike(self) -> ModelStrike | None:
        self._requests += 1
        step = self._step
        if self._requests > 1:
            step = step._replace(step=f"{step.step}.{self._requests}")
        number = self._experiment.strike(Place.MODEL, [step.name], step)
        if number is None:
            return None
        kind = self._experiment.plan.faults[number].kind
        return ModelStrike(kind, partial(self._experiment.struck, number, step))


_at_work: ContextVar[_AtWork | None] = ContextVar("chaos_at_work", default=None)


def model_strike() -> ModelStrike | None:
    """What the plan has for a request to the model that is made here and now."""
    at_work = _at_work.get()
    return at_work.strike() if at_work else None


# --- around all other interceptors ------------------------------------------------------------------


class _Outermost(Interceptor):
    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _OuterActivity(next, self._experiment)

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002
    ) -> type[WorkflowInboundInterceptor]:
        return _Counting


class _OuterActivity(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, experiment: Experiment) -> None:
        super().__init__(following)
        self._experiment = experiment

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        step, experiment = activity_step(), self._experiment
        lost = self._due("lost_completion", step)
        stalled = self._due("stalled_heartbeat", step)
        if stalled is not None:
            experiment.struck(stalled, step)
            await asyncio.sleep((_silence() or LONGEST_WAIT).total_seconds() + 0.5)
        result = await super().execute_activity(input)
        if lost is not None:
            experiment.struck(lost, step)
            activity.raise_complete_async()  # it is told to nobody
        return result

    def _due(self, kind: str, step: Step) -> int | None:
        number = self._experiment.strike(Place.ACTIVITY, [step.name], step, kind=kind)
        if number is None:
            return None
        silence = _silence()
        if activity.info().is_local or not silence or silence > LONGEST_WAIT:
            why = f"{step.name} has no short heartbeat timeout: its run would not notice for long"
            self._experiment.kept(number, step, why)
            return None
        return number


def _silence() -> timedelta | None:
    """How long the server waits for this activity's worker before it gives it up."""
    info = activity.info()
    return info.heartbeat_timeout or info.start_to_close_timeout


class _Counting(WorkflowInboundInterceptor):
    """Counts the operations that a run starts: the other side hears which one it is."""

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_CountingOut(outbound))


class _CountingOut(WorkflowOutboundInterceptor):
    def __init__(self, following: WorkflowOutboundInterceptor) -> None:
        super().__init__(following)
        self._started = 0

    async def start_nexus_operation(self, input: StartNexusOperationInput[Any, Any]) -> Any:  # noqa: A002
        self._started += 1
        input.headers = {**(input.headers or {}), STEP_HEADER: str(self._started)}
        return await super().start_nexus_operation(input)


# --- inside all other interceptors ------------------------------------------------------------------


class _Innermost(SimplePlugin, Interceptor):
    """A plugin of the worker: it comes after those of the client, whose interceptors it is inside of."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__("chaos")
        self._experiment = experiment

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        config = super().configure_worker(config)
        config["interceptors"] = [*config.get("interceptors", []), self]
        return config

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _InnerActivity(next, self._experiment)

    def intercept_nexus_operation(
        self,
        next: NexusOperationInboundInterceptor,  # noqa: A002
    ) -> NexusOperationInboundInterceptor:
        operation = _InnerOperation(next)
        operation.experiment = self._experiment
        return operation


class _InnerActivity(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, experiment: Experiment) -> None:
        super().__init__(following)
        self._experiment = experiment

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        step, experiment = activity_step(), self._experiment
        after: list[Fault] = []
        for place, names in _places_of(step.name, input.args):
            for kind in ("slow", "fails", "connection_lost", "server_error", "answer_lost"):
                number = experiment.strike(place, names, step, kind=kind)
                if number is None:
                    continue
                fault = experiment.plan.faults[number]
                experiment.struck(number, step)
                if kind == "answer_lost":
                    after.append(fault)
                elif kind == "slow":
                    async with heartbeating():
                        await asyncio.sleep(fault.seconds)
                else:
                    raise _failure(fault)
        token = _at_work.set(_AtWork(experiment, step))
        try:
            result = await super().execute_activity(input)
        finally:
            _at_work.reset(token)
        for fault in after:
            raise _failure(fault)
        return result


def _places_of(kind: str, args: Any) -> list[tuple[Place, list[str]]]:
    """The places that an activity is, and what it goes by there."""
    places = [(Place.ACTIVITY, [kind])]
    if kind == LOCAL_TOOLS and args:
        places.append((Place.LOCAL_TOOL, [str(getattr(args[0], "name", ""))]))
    if kind.startswith(MCP_PREFIX):
        server, _, call = kind.removeprefix(MCP_PREFIX).rpartition(".")
        tool = args[0].get("name") if args and isinstance(args[0], dict) else None
        places.append((Place.MCP, [server, str(tool or call)]))
    return places


def _failure(fault: Fault) -> Exception:
    if fault.place is not Place.MCP:
        return ApplicationError(f"a planned failure ({fault.kind})", type=PLANNED)
    from mcp import MCPError
    from mcp.types import INTERNAL_ERROR

    if fault.kind == "server_error":
        return MCPError(INTERNAL_ERROR, "a planned internal error")
    return ConnectionError("a planned loss of the connection")


class _InnerOperation(NexusOperationInboundInterceptor):
    experiment: Experiment

    async def execute_nexus_operation_start(
        self,
        input: ExecuteNexusOperationStartInput,  # noqa: A002
    ) -> StartOperationResultSync[Any] | StartOperationResultAsync:
        step = operation_step(input)
        due = {
            kind: number
            for kind in ("slow", "fails", "answer_lost")
            if (number := self.experiment.strike(Place.NEXUS, [step.name], step, kind=kind))
            is not None
        }
        for kind in ("slow", "fails"):
            if kind in due:
                self.experiment.struck(due[kind], step)
            if kind in due and kind == "slow":
                await asyncio.sleep(self.experiment.plan.faults[due[kind]].seconds)
            elif kind in due:
                raise HandlerError("a planned failure", type=HandlerErrorType.UNAVAILABLE)
        result = await super().execute_nexus_operation_start(input)
        if "answer_lost" in due:
            self.experiment.struck(due["answer_lost"], step)
            raise HandlerError("a planned loss", type=HandlerErrorType.UNAVAILABLE)
        return result
