"""Who is asking, over MCP: the token that an agent brings, and the check in front of a server's tools.

Any valid token may list tools, which are the same for everybody; a call needs the scope of the server's
party. Over HTTP the token stands in the request's header. Over standard input and output FastMCP checks
nothing, so a caller of ours puts it into the call; a server that somebody else has started acts for the
local user that its own configuration names (`MCP_LOCAL_USER`), or for nobody.

Left out: what a token must say (`tokens`).
"""

import logging
from collections.abc import Callable
from typing import Any

from fastmcp.server.auth import AccessToken, TokenVerifier
from fastmcp.server.dependencies import get_access_token
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools.base import ToolResult

from workshop_lib.auth.door import Door
from workshop_lib.auth.issuer import PREFIX, agent_token, sign_in
from workshop_lib.auth.outbound import acting_for, who_asks
from workshop_lib.auth.sealed import Who
from workshop_lib.auth.tokens import Claims, Refused, require, verify
from workshop_lib.errors import WorkshopError
from workshop_lib.mcp.addresses import TOKEN
from workshop_lib.mcp.server import Guard, refusal
from workshop_lib.settings import get_settings

logger = logging.getLogger(__name__)


def guard(party: str) -> Guard:
    """What stands in front of a party's MCP server: nothing where identity is off."""
    if get_settings().identity == "off":
        return Guard()
    return Guard(
        auth=Verifier(party), middleware=[_CheckedCalls(party)], interceptors=[Door(party)]
    )


def token_for() -> Callable[[str], str] | None:
    """What makes the token of a call to a team, at the moment of the call; None where identity is off."""
    if get_settings().identity == "off":
        return None
    return _token_of_who_asks


def _token_of_who_asks(team: str) -> str:
    return agent_token(who_asks(), team)


class Verifier(TokenVerifier):
    """Lets in who has a valid token for a party."""

    def __init__(self, party: str) -> None:
        super().__init__()
        self._party = party

    async def verify_token(self, token: str) -> AccessToken | None:
        """What a token says; None answers the request with 401."""
        try:
            claims = verify(token, self._party)
        except Refused as error:
            logger.info("refused: %s", error.what)
            return None
        return AccessToken(
            token=token,
            client_id=claims.act.sub,
            scopes=sorted(claims.asker.scopes),
            expires_at=int(claims.exp) + 60,  # the claims have been checked, with a leeway
            claims=claims.model_dump(),
        )


class _CheckedCalls(Middleware):
    """Asks for the party's scope before a tool is called."""

    def __init__(self, party: str) -> None:
        self._party = party

    async def on_call_tool(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, ToolResult]
    ) -> ToolResult:
        try:
            claims = self._claims(context)
            if self._party not in PREFIX:  # there each tool asks for its own
                require(claims.asker, f"{self._party}:read")
        except Refused as error:
            return refusal(error.what, error.kind)
        who = Who(sub=claims.sub, act=claims.act.sub, scope=claims.scope)
        with acting_for(who):
            return await call_next(context)

    def _claims(self, context: MiddlewareContext[Any]) -> Claims:
        """What the caller's token says, or that of the local user."""
        if access := get_access_token():
            return Claims.model_validate(access.claims)
        request = context.fastmcp_context.request_context if context.fastmcp_context else None
        if token := ((request.meta if request else None) or {}).get(TOKEN):
            return verify(str(token), self._party)
        local = get_settings().mcp_local_user
        if not local:
            raise Refused(
                "This server checks who is asking. Over STDIO it acts for the user that its own"
                " configuration names in MCP_LOCAL_USER, and that names nobody."
            )
        try:
            claims = verify(sign_in(local, "stdio").token(self._party), self._party)
            logger.warning("this server acts for %s", local)
            return claims
        except WorkshopError as error:
            raise Refused(error.what) from None
