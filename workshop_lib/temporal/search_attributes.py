"""What runs are found by: whose a session or a repair is, and what a repair waits for.

Temporal's search attributes of the orchestrator's namespace, so the server answers for thousands of runs at
once and no worker has to. They are as true as whoever wrote them last: good for lists, no proof of anything.
A server that does not know them runs everything all the same, and says so when it is asked for such a list.

Left out: who registers them (`lab.server.namespaces`).
"""

from collections.abc import Mapping
from datetime import timedelta
from weakref import WeakKeyDictionary

from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode, ServiceClient

SESSION_OWNER = SearchAttributeKey.for_keyword("SessionOwner")  # who has started it
REPAIR_STATUS = SearchAttributeKey.for_keyword("RepairStatus")  # one of `repair.states.State`
KEYS = (SESSION_OWNER, REPAIR_STATUS)
MAX_CHARS = 200
CALL = timedelta(seconds=10)
# What a server answers that has none of them, or does not let us ask.
UNKNOWN = (
    RPCStatusCode.INVALID_ARGUMENT,
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNIMPLEMENTED,
)

_known: WeakKeyDictionary[ServiceClient, dict[str, bool]] = WeakKeyDictionary()


async def found_by(
    client: Client, values: Mapping[SearchAttributeKey[str], str]
) -> TypedSearchAttributes:
    """What a run is started with; nothing on a server that does not know these attributes.

    Raises:
        RPCError: the server cannot be asked now.
    """
    if not await _knows(client):
        return TypedSearchAttributes.empty
    return TypedSearchAttributes(
        [SearchAttributePair(key, keyword(value)) for key, value in values.items()]
    )


def keyword(text: str) -> str:
    """Text as it is kept and asked for: without what a list filter cannot hold, and not too long."""
    usable = (c if c.isprintable() and c not in "'\"\\" else "_" for c in text[:MAX_CHARS])
    return "".join(usable)


def equals(key: SearchAttributeKey[str], value: str) -> str:
    """A list filter."""
    return f"{key.name} = '{keyword(value)}'"


async def _knows(client: Client) -> bool:
    """Whether the server does; asked once a connection."""
    known = _known.setdefault(client.service_client, {})
    if client.namespace not in known:
        every = " AND ".join(equals(key, "") for key in KEYS)
        try:
            await client.count_workflows(every, rpc_timeout=CALL)
            known[client.namespace] = True
        except RPCError as error:
            if error.status not in UNKNOWN:
                raise
            known[client.namespace] = False
    return known[client.namespace]
