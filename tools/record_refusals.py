"""Record a chat of each loop in which somebody is refused: `tests/histories/identity/<loop>.json`.

    uv run python tools/record_refusals.py

Like `record_histories`, with identity on. The keys of the histories are not kept: they replay
without, as they would after the keys have been exchanged many times.
"""

import asyncio
import logging
import tempfile
from pathlib import Path

from record_histories import FOLDER, IDENTITY, cleaned

from workshop_lib.lab.server import lifecycle as server
from workshop_lib.lab.server.namespaces import ensure_namespaces

from identity_ground import LOOPS, house, say  # isort: skip  # on the path by now

HISTORIES = FOLDER / "identity"
QUESTIONS = (
    ("alice", "Get JIRA metrics for project HR-1"),
    ("bob", "Get JIRA metrics for project HR-1"),
    ("bob", "Get JIRA metrics for project DEMO-456"),
)


async def record(folder: Path) -> None:
    """Let it happen, and write the histories."""
    found = await asyncio.to_thread(server.ensure_server, in_memory=True)
    await ensure_namespaces(found)
    async with house(found.address, folder, identity=IDENTITY) as ground:
        for loop in LOOPS:
            for person, question in QUESTIONS:
                chat = await ground.chat(person, loop, f"refused-{loop}", user=person)
                print(f"{loop}, {person}: {(await say(chat, question)).text}")
            await chat.end()
            await chat.handle.result()
            history = (await chat.handle.fetch_history()).to_json()
            (HISTORIES / f"{loop}.json").write_text(cleaned(history, str(folder)), encoding="utf-8")


if __name__ == "__main__":
    from notebook_runner import isolated_state

    from workshop_lib.settings import reload_settings

    logging.getLogger("temporalio").setLevel(logging.CRITICAL)
    HISTORIES.mkdir(exist_ok=True)
    with isolated_state(), tempfile.TemporaryDirectory() as keys:
        reload_settings()
        asyncio.run(record(Path(keys) / "state"))
