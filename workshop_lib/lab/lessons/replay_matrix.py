"""Many recorded runs under many states of the code, as a table in red and green.

The recorded runs are those of all agents that the tests replay, the states of the code are `code_changes`; or
runs and classes of a learner's own. A red field is a run that would be stuck in its worker for ever, and says
why. Nothing is run. Left out: what a worker says when it meets the same (`lab.watching.failures`).
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from temporalio.client import WorkflowHandle, WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from workshop_lib.agents.worker import orchestrator
from workshop_lib.errors import WorkshopError
from workshop_lib.harmless import line
from workshop_lib.lab.lessons.code_changes import CHANGES, Change
from workshop_lib.lab.lessons.replaying import Replayed, outcome_of
from workshop_lib.repair.worker import repair
from workshop_lib.settings import PROJECT_ROOT
from workshop_lib.temporal.connect import quiet_runtime
from workshop_lib.temporal.failures import DATA_CONVERTER
from workshop_lib.temporal.worker import WorkerSpec

RECORDED = PROJECT_ROOT / "tests" / "histories"
# What the picture in the notebook holds of them: one of each kind.
SHOWN = (
    *("manual", "sdk", "sdk_streaming", "mcp", "repair", "proactive", "continued_manual"),
    *("stopped_manual", "forked_manual", "patched_manual", "deprecated_manual", "added_manual"),
)
_WHERE = re.compile(r"^\[TMPRL\d+\] (?:at event \d+ )?")
LIMIT = 120.0  # seconds for all of it; a quiet laptop needs three
_STYLE = (
    ".rm{padding:4px 0 0 5px;font:12px/18px var(--jp-ui-font-family,system-ui,sans-serif);"
    "color:var(--jp-content-font-color1,var(--vscode-foreground,CanvasText))}"
    ".rm table{border-collapse:separate;border-spacing:3px;font:inherit}"
    ".rm th{font-weight:500;text-align:left;padding:2px 8px 2px 0;vertical-align:bottom}"
    ".rm thead th{max-width:76px}"
    ".rm td{padding:2px 10px;text-align:center!important;border-radius:3px}"
    ".rm .g{background:#2f8f4e33}.rm .r{background:#c4403033;font-weight:600}"
    ".rm-notes{display:flex;flex-wrap:wrap;gap:0 32px}.rm ul{margin:4px 0;padding-left:18px}"
    ".rm pre{white-space:pre-wrap}"
)


@dataclass(frozen=True)
class State:
    """A state of the code: a column.

    Attributes:
        title: what it is called.
        what: what is different in it, in a sentence.
        workflows: its classes; None for those of the agents.
        change: put around them.
    """

    title: str
    what: str = ""
    workflows: Sequence[type] | None = None
    change: Change | None = None


class ReplayMatrix:
    """How each run went under each state of the code. Jupyter shows the table, `print` the text.

    Attributes:
        states: the columns.
        fields: by the run's name and the state's title.
    """

    def __init__(self, states: Sequence[State], fields: dict[tuple[str, str], Replayed]) -> None:
        self.states = states
        self.fields = fields

    @property
    def runs(self) -> list[str]:
        """Names of the runs: the rows."""
        return list(dict.fromkeys(run for run, _ in self.fields))

    @property
    def red(self) -> dict[tuple[str, str], Replayed]:
        """The fields that are red."""
        return {place: field for place, field in self.fields.items() if not field.green}

    def __repr__(self) -> str:
        wide = max(map(len, self.runs), default=0)
        titles = [state.title for state in self.states]
        rows = [" " * wide + "".join(f"  {title}" for title in titles)]
        for run in self.runs:
            words = (f"  {self._word(run, title):<{len(title)}}" for title in titles)
            rows.append(f"{run:<{wide}}{''.join(words)}".rstrip())
        rows += ["", *self._legend(), "", *self._reasons()]
        return "\n".join(rows)

    def _repr_html_(self) -> str:
        heads = "".join(
            f'<th scope="col" title="{escape(state.what)}">{escape(state.title)}</th>'
            for state in self.states
        )
        rows = "".join(
            f'<tr><th scope="row">{escape(run)}</th>'
            + "".join(self._cell(run, state.title) for state in self.states)
            + "</tr>"
            for run in self.runs
        )
        notes = "".join(
            f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"
            for notes in (self._legend(), self._reasons())
        )
        return (
            f'<div class="rm" role="figure" aria-label="Recorded runs under states of the code">'
            f"<style>{_STYLE}</style><table><thead><tr><td></td>{heads}</tr></thead>"
            f'<tbody>{rows}</tbody></table><div class="rm-notes">{notes}</div>'
            f"<details><summary>As text</summary><pre>{escape(repr(self))}</pre></details></div>"
        )

    def _cell(self, run: str, title: str) -> str:
        field = self.fields[run, title]
        kind = "g" if field.green else "r"
        return f'<td class="{kind}" title="{escape(field.problem)}">{self._word(run, title)}</td>'

    def _word(self, run: str, title: str) -> str:
        field = self.fields[run, title]
        return "green" if field.green else f"red {self._letter(field)}"

    def _letter(self, field: Replayed) -> str:
        return "abcdefghijklmnopqrstuvwxyz"[self._problems().index(_reason(field)) % 26]

    def _problems(self) -> list[str]:
        """Why fields are red, each reason once."""
        return list(dict.fromkeys(map(_reason, self.red.values())))

    def _legend(self) -> list[str]:
        return [f"{state.title}: {state.what}" for state in self.states if state.what]

    def _reasons(self) -> list[str]:
        seen = {self._letter(field): _reason(field) for field in self.red.values()}
        return [f"red {letter}: {reason}" for letter, reason in seen.items()]


def _reason(field: Replayed) -> str:
    """Why a field is red, in words that hold for others, too."""
    return _WHERE.sub("", field.problem)


async def replay_matrix(
    runs: Mapping[str, WorkflowHandle[Any, Any] | WorkflowHistory] | Sequence[str] | None = None,
    versions: Mapping[str, type | Sequence[type]] | None = None,
    *,
    timeout: float = LIMIT,
) -> ReplayMatrix:
    """Replay each run under each state of the code.

    Args:
        runs: runs of your own by what they are called, or names of recorded ones; some of each kind of
            agent when left out.
        versions: classes of your own by what that state of the code is called; the agents' code and its
            changes when left out.
        timeout: seconds that fetching and replaying may take.

    Raises:
        WorkshopError: there is no such recording.
    """
    quiet_runtime()  # a replay that does not go through is no news for the log
    states = (
        [State(change.title, change.what, change=change()) for change in CHANGES]
        if versions is None
        else [
            State(title, workflows=[code] if isinstance(code, type) else code)
            for title, code in versions.items()
        ]
    )
    async with asyncio.timeout(timeout):
        if not isinstance(runs, Mapping):
            runs = {name: recorded(name) for name in (SHOWN if runs is None else runs)}
        histories = {
            line(name, 30): run if isinstance(run, WorkflowHistory) else await run.fetch_history()
            for name, run in runs.items()
        }
        columns = [(state, await _column(histories, state)) for state in states]
    return ReplayMatrix(
        states,
        {(name, state.title): found[name] for name in histories for state, found in columns},
    )


def recorded(name: str) -> WorkflowHistory:
    """A recorded run of an agent, under the id that it had: a plan's digest counts for one run.

    Raises:
        WorkshopError: there is none of this name.
    """
    path = RECORDED / f"{name}.json"
    if not path.is_file():
        known = sorted(path.stem for path in RECORDED.glob("*.json"))
        raise WorkshopError(f"There is no recorded run {name!r}.", expected=", ".join(known))
    text = path.read_text(encoding="utf-8")
    started = json.loads(text)["events"][0]["workflowExecutionStartedEventAttributes"]
    return WorkflowHistory.from_json(started["workflowId"], text)


def type_of(history: WorkflowHistory) -> str:
    """The workflow type of a run."""
    return history.events[0].workflow_execution_started_event_attributes.workflow_type.name


async def _column(histories: Mapping[str, WorkflowHistory], state: State) -> dict[str, Replayed]:
    """All runs under one state of the code."""
    specs = [orchestrator(), repair()] if state.workflows is None else [_own(state.workflows)]
    found: dict[str, Replayed] = {}
    for spec in specs:
        served = {n: h for n, h in histories.items() if type_of(h) in spec.workflow_names}
        if served:
            found |= await _replayed(served, spec, state)
    unknown = Replayed("this code has no workflow of that type")
    return {name: found.get(name, unknown) for name in histories}


def _own(workflows: Sequence[type]) -> WorkerSpec:
    return WorkerSpec(name="replay", namespace="none", task_queue="none", workflows=workflows)


async def _replayed(
    histories: Mapping[str, WorkflowHistory], spec: WorkerSpec, state: State
) -> dict[str, Replayed]:
    """Runs of one worker, by name."""
    # Plugins bring their converter along.
    options: dict[str, Any] = (
        {"plugins": [make() for make in spec.client_plugins]}
        if spec.client_plugins
        else {"data_converter": DATA_CONVERTER}
    )
    replayer = Replayer(
        workflows=list(spec.workflows),
        interceptors=[state.change] if state.change else [],
        # What the sandbox refuses, it has refused when the run was recorded; without, it takes half the time.
        workflow_runner=UnsandboxedWorkflowRunner(),
        debug_mode=True,  # nothing is held against a machine that is slow
        **options,
    )

    async def each() -> AsyncIterator[WorkflowHistory]:
        for history in histories.values():
            yield history

    results = await replayer.replay_workflows(each(), raise_on_replay_failure=False)
    failures = results.replay_failures
    return {name: outcome_of(failures.get(one.run_id)) for name, one in histories.items()}
