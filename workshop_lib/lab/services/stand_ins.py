"""Whether workers that run already can do a command's work, and what the command has to serve itself.

A worker of `workshop up` stands in where it answers as one of this process would: with the same model,
faults, settings and code. Where another one polls, this command gets a task queue of its own, so that
neither takes the other's work. Left out: running workers (`temporal.service`).
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence

from temporalio.client import Client

from workshop_lib.lab.registry import local_process
from workshop_lib.lab.watching.queues import Queue, look_at, places
from workshop_lib.machine import records
from workshop_lib.machine.records import Record
from workshop_lib.settings import get_settings, reload_settings
from workshop_lib.temporal.service import answers_with

# Whose queue may be another one, and the variable that says which. A team's is where its endpoint leads.
OWN_QUEUES = {"orchestrator": "ORCHESTRATOR_QUEUE", "repair": "REPAIR_QUEUE"}


def there_may_be(names: Sequence[str]) -> bool:
    """True where each of these workers was started as a service, lives and fits. Asks no server."""
    living = records.services(get_settings().state_dir, "service")
    fitting = {record["name"] for record in living if not differences(record)}
    return fitting.issuperset(names)


def differences(record: Record) -> list[str]:
    """In what a recorded worker differs from one of this process: "model", "faults", "code" …"""
    theirs = record.get("answers_with", {})
    return [what for what, mine in answers_with().items() if theirs.get(what) != mine]


async def find_gaps(
    client: Client, names: Sequence[str], say: Callable[[str], object]
) -> dict[str, list[str]]:
    """The task queues that this process has to serve, for each worker that does not stand in.

    Where that is a queue of its own, the settings say so from then on.

    Args:
        say: told of workers that run and are not used.
    """
    gaps: dict[str, list[str]] = {}
    for name in names:
        namespace, main = places()[name]
        (queue,) = await look_at(client, (namespace, main))
        needed = set[str]()
        if name in OWN_QUEUES:
            needed = await _left_alone(client, namespace, main)
        others = _others(queue)
        if not any(record["kind"] == "service" for record, differs in others if not differs):
            strange = [
                _title(record, differs)
                for record, differs in others
                if differs or record["kind"] != "command"
            ]
            if not strange:
                needed.add(main)
            elif name in OWN_QUEUES:
                own = f"{main}-{_digest()}"
                say(f"{'; '.join(strange)}: a worker of its own serves this, on {own}.")
                os.environ[OWN_QUEUES[name]] = own
                reload_settings()
                needed.add(own)
            else:
                say(f"{'; '.join(strange)}: it is used all the same.")
        if needed:
            gaps[name] = sorted(needed)
    return gaps


def _others(queue: Queue) -> list[tuple[Record, list[str]]]:
    """Who polls a queue: its record, and in what it differs from a worker of this process.

    Of a worker that has stopped the server hears nothing, and its process may live: a kernel, this very
    command. On this machine a worker has a record for as long as it polls.
    """
    recorded = records.services(get_settings().state_dir)
    known = {r.get("identity"): r for r in recorded if r.get("queue") == queue.name}
    found = [
        known.get(poller) or Record(pid=0, create_time=0, name=poller, kind="unknown")
        for poller in queue.living
        if poller in known or local_process(poller) is None
    ]
    return [(record, differences(record)) for record in found]


def _title(record: Record, differs: list[str]) -> str:
    if record["kind"] == "unknown":
        return f"A worker that nothing is known of, {record['name']}, polls"
    why = f"has another {' and '.join(differs)}" if differs else "belongs to a notebook"
    return f"The worker {record['name']} that runs (pid {record['pid']}) {why}"


async def _left_alone(client: Client, namespace: str, main: str) -> set[str]:
    """Queues of commands that are over, on which something still runs and nobody polls."""
    query = f"ExecutionStatus = 'Running' AND TaskQueue STARTS_WITH '{main}-'"
    queues = {run.task_queue async for run in client.list_workflows(query, page_size=100)}
    looked = await look_at(client, *((namespace, queue) for queue in queues))
    return {queue.name for queue in looked if not _others(queue)}


def _digest() -> str:
    """The same for all commands that may share a queue."""
    return hashlib.sha256(json.dumps(answers_with()).encode()).hexdigest()[:8]
