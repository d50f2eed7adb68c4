"""Record conversations of every loop anew: `tests/histories/<name>.json`.

    uv run python tools/record_histories.py

A test replays these histories with today's code. One that does not replay any more says that chats which
run at the moment of an update would break: guard the change with `workflow.patched`, or, where no chat can
be that old, record anew. Offline model, a server of its own, and nothing of this machine in the files.
"""

import asyncio
import json
import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

PROJECT_ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(PROJECT_ROOT / "tests"))

from notebook_runner import forget_learners_settings, isolated_state  # noqa: E402

from workshop_lib.agents.chat import ChatStart  # noqa: E402
from workshop_lib.agents.sessions import ChatClient  # noqa: E402
from workshop_lib.agents.worker import orchestrator  # noqa: E402
from workshop_lib.connect import connect  # noqa: E402
from workshop_lib.lab import server  # noqa: E402
from workshop_lib.lab.namespaces import ensure_namespaces  # noqa: E402
from workshop_lib.llm.gateway import warm_up  # noqa: E402
from workshop_lib.settings import reload_settings  # noqa: E402
from workshop_lib.teams.finance.worker import finance  # noqa: E402
from workshop_lib.teams.it.worker import it  # noqa: E402

FOLDER = PROJECT_ROOT / "tests" / "histories"
IDENTITY = "recorded"  # instead of process and host
SECONDS = 120
# A local tool, both teams at once, an error of a team, one that the contract refuses, and a follow-up.
CONVERSATION = (
    "What is 15 * 23?",
    "What is my IP address and the stock price of NVDA?",
    "What's the stock price of ZZZZ?",
    "Calculate ROI for $10,000 at 5000% over 10 years",
    "Get JIRA metrics for project DEMO-456",
    "And for WEB-101?",
)
COMMAND = "uv run python tools/record_histories.py"
RECORDINGS = {  # name of the file: the loop, and how its session is started
    "manual": ("manual", ChatStart(user="learner")),
    "sdk": ("sdk", ChatStart(user="learner")),
    "sdk_streaming": ("sdk", ChatStart(user="learner", stream=True)),
}


async def record() -> dict[str, str]:
    """Hold the conversation in each way; returns the histories as JSON by name."""
    found = await asyncio.to_thread(server.ensure_server, in_memory=True)
    await ensure_namespaces(found)
    await warm_up()
    histories = {}
    async with asyncio.timeout(SECONDS), AsyncExitStack() as workers:
        for spec in (it(), finance(), orchestrator()):
            plugins = [make() for make in spec.client_plugins]
            client = await connect(spec.namespace, plugins=plugins, identity=IDENTITY)
            await workers.enter_async_context(spec.build(client))
        for name, (loop, start) in RECORDINGS.items():
            chat = ChatClient(client, loop, f"recorded-{name}", start=start)
            for message in CONVERSATION:
                print(f"{name}: {(await chat.send(message)).text}")
            await chat.end()
            await chat.handle.result()
            histories[name] = cleaned((await chat.handle.fetch_history()).to_json())
    return histories


def cleaned(history: str) -> str:
    """A history without stack traces, which name folders of this machine and which no replay reads."""
    return json.dumps(_without_stacks(json.loads(history)), separators=(",", ":")) + "\n"


def _without_stacks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_stacks(v) for key, v in value.items() if key != "stackTrace"}
    return [_without_stacks(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    """Record and write all of them."""
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)  # the errors are meant
    forget_learners_settings()
    with isolated_state():
        reload_settings()
        histories = asyncio.run(record())
    FOLDER.mkdir(exist_ok=True)
    for name, text in histories.items():
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
