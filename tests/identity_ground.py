"""Both teams, their MCP servers and the chat, with identity on, in this process: what tests of it stand on.

Counts how often a tool of a team has run. Left out: what is asked, and by whom.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lab_environment import free_port, set_env
from teams_environment import Teams, new_names
from temporalio.client import Client

from workshop_lib.agents.chat import ChatStart, Reply
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.auth.issuer import Grant, sign_in
from workshop_lib.auth.outbound import Person
from workshop_lib.lab.services.mcp_in_kernel import McpServerHere
from workshop_lib.settings import reload_settings
from workshop_lib.teams.finance import activities as finance_work
from workshop_lib.teams.finance import mcp_server as finance_mcp
from workshop_lib.teams.it import activities as it_work
from workshop_lib.teams.it import mcp_server as it_mcp
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.service import client_for
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = timedelta(seconds=60)
LOOPS = ("manual", "sdk", "mcp")


class House:
    """What runs.

    Attributes:
        runs: names of the teams whose tools ran, in order.
        urls: of the MCP servers.
    """

    def __init__(self, teams: Teams, chat_spec: WorkerSpec, identity: str | None) -> None:
        self.teams = teams
        self.chat_spec = chat_spec
        self.identity = identity
        self.runs: list[str] = []
        self.urls: dict[str, str] = {}

    async def client(self, person: str | Grant | None) -> Client:
        """The client of somebody who has signed in, or of somebody who has not."""
        grant = sign_in(person) if isinstance(person, str) else person
        return await connect(interceptors=[Person(grant)] if grant else [], identity=self.identity)

    async def chat(
        self,
        person: str | Grant | None,
        loop: str = "manual",
        session: str | None = None,
        **start: Any,
    ) -> ChatClient:
        """Somebody's end of a session."""
        begin = ChatStart.model_validate(start)
        client = await self.client(person)
        return ChatClient(client, loop, session, task_queue=self.chat_spec.task_queue, start=begin)


async def say(chat: ChatClient, message: str) -> Reply:
    return await chat.send(message, timeout=LIMIT)


@contextmanager
def house_env(address: str, folder: Path, **env: object) -> Iterator[pytest.MonkeyPatch]:
    """The environment with identity on.

    Args:
        folder: for the keys.
    """
    with pytest.MonkeyPatch.context() as patch:
        set_env(
            patch,
            **new_names(),
            **{f"{name}_MCP_PORT": free_port() for name in ("IT", "FINANCE", "REPAIR")},
            TEMPORAL_ADDRESS=address,
            WORKSHOP_STATE_DIR=folder,
            WORKSHOP_IDENTITY="on",
            **env,
        )
        yield patch
    reload_settings()


@asynccontextmanager
async def house(address: str, folder: Path, *, identity: str | None = None) -> AsyncIterator[House]:
    """The house with identity on, while the block runs.

    Args:
        identity: what histories call its workers and clients; process and host when left out.
    """
    with house_env(address, folder) as patch:
        teams = Teams(await connect())
        await teams.open()
        chat_spec = orchestrator().with_queue(f"chat-{uuid.uuid4().hex[:8]}")
        found = House(teams, chat_spec, identity)
        for name, work in (("it", it_work), ("finance", finance_work)):
            patch.setattr(work, "read_records", _counted(found, work.read_records, name))
        servers = [McpServerHere(made.server()) for made in (it_mcp, finance_mcp)]
        try:
            async with AsyncExitStack() as workers:
                for spec in (teams.it, teams.finance, chat_spec):
                    client = await client_for(spec)
                    if identity:
                        client = await connect(
                            spec.namespace,
                            plugins=[make() for make in spec.client_plugins],
                            interceptors=[make() for make in spec.interceptors],
                            identity=identity,
                        )
                    await workers.enter_async_context(spec.build(client))
                for name, server in zip(("it", "finance"), servers, strict=True):
                    await asyncio.to_thread(server.start)
                    found.urls[name] = server.url
                yield found
        finally:
            for server in servers:
                await asyncio.to_thread(server.stop)
            await teams.close()


def _counted(house: House, read: Callable[[str], Any], name: str) -> Callable[[str], Any]:
    def counted(team: str) -> Any:
        house.runs.append(name)
        return read(team)

    return counted
