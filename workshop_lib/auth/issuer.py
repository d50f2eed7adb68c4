"""Who may do what, and the proof of it: signing in, and what a person's agents get in the person's name.

Stands in for a company's identity provider. `sign_in` believes the name and makes a *grant*: a file in the
state folder that says who has signed in. Tokens and sealed values are made from it as they are needed, each
for one audience and with no more scopes than that one knows; so a conversation may last longer than any
token, and ends for its owner when the grant is revoked. What is durable names the grant, never a token.

Left out: how they are checked (`tokens`, `sealed`).
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from workshop_lib.auth import sealed
from workshop_lib.auth.keys import AUDIENCES, FOLDER, ISSUER_KEYS, fresh, ring
from workshop_lib.auth.tokens import LIFETIME, Refused, new_claims, sign
from workshop_lib.errors import WorkshopError
from workshop_lib.machine import state_folder
from workshop_lib.machine.files import write_whole
from workshop_lib.settings import PROJECT_ROOT, get_settings
from workshop_lib.temporal.caller import Asker

_ID = re.compile(r"[0-9a-f]{32}")
AGENT = "chat-agent"
PREFIX = {"repair": "orders"}  # what an audience's scopes begin with, where it is not its name


@lru_cache
def people() -> dict[str, list[str]]:
    """The scopes of everybody who may sign in, by name."""
    path = PROJECT_ROOT / "data" / "people.json"
    found: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))["people"]
    return found


def scopes_for(audience: str, scopes: Sequence[str]) -> str:
    """Those of a person's scopes that an audience has to know of, as a token has them."""
    prefix = PREFIX.get(audience, audience)
    return " ".join(scope for scope in scopes if scope.partition(":")[0] == prefix)


@dataclass(frozen=True)
class Grant:
    """Somebody who has signed in.

    Attributes:
        id: names the file that says so. Known, it proves nothing.
        name: the person.
        program: what the person uses; it is the actor of what is made here.
    """

    id: str
    name: str
    program: str = "terminal"

    def token(self, audience: str, lifetime: float = LIFETIME) -> str:
        """A new access token for one audience, for at most `lifetime` seconds.

        Raises:
            Refused: the grant has been revoked.
        """
        scope = scopes_for(audience, self.scopes())
        claims = new_claims(self.name, self.program, audience, scope, lifetime)
        return sign(claims)

    def seal(self, audience: str, what: sealed.Binding, lifetime: float) -> str:
        """A sealed value for one audience, which counts for this call and no other.

        Raises:
            Refused: the grant has been revoked.
        """
        scopes = self.scopes()
        # The chat asks others in the person's name, so it is told of all scopes; the others of their own.
        scope = " ".join(scopes) if audience == "chat" else scopes_for(audience, scopes)
        who = sealed.Who(sub=self.name, act=self.program, scope=scope, grant=self.id)
        return sealed.seal(fresh(audience), audience, who, what, lifetime=lifetime)

    @property
    def asker(self) -> Asker:
        """The same, as the work that is asked for sees it.

        Raises:
            Refused: the grant has been revoked.
        """
        return Asker(self.name, frozenset(self.scopes()))

    def scopes(self) -> list[str]:
        """What the person may do now.

        Raises:
            Refused: the grant has been revoked.
        """
        return live_scopes(self.id, self.name)

    def revoke(self) -> None:
        """Sign out, everywhere: nothing more is made from this grant."""
        _file(self.id).unlink(missing_ok=True)


def sign_in(name: str, program: str = "terminal") -> Grant:
    """Believe a name.

    Raises:
        WorkshopError: nobody of that name may sign in.
    """
    if name not in people():
        raise WorkshopError(
            f"Nobody called {name!r} can sign in.",
            expected=f"one of {', '.join(people())} (data/people.json).",
            fix="set USER_NAME to one of them.",
        )
    grant = Grant(secrets.token_hex(16), name, program)
    write_whole(_file(grant.id), json.dumps({"name": name}))
    return grant


@lru_cache(maxsize=8)
def signed_in(state: Path, name: str) -> Grant:
    """The grant of the person at this process's keyboard: one a process."""
    return sign_in(name)


def agent_token(who: sealed.Who | None, audience: str) -> str:
    """A token with which the chat agent calls a team in somebody's name, or, with nobody's, in its own.

    The agent's own has no scopes: it may ask which tools there are, and call none.

    Raises:
        Refused: the person has signed out.
    """
    if who is None:
        claims = new_claims(AGENT, AGENT, audience, "")
    else:
        live_scopes(who.grant, who.sub)
        claims = new_claims(who.sub, AGENT, audience, scopes_for(audience, who.scope.split()))
    return sign(claims)


def live_scopes(grant: str, name: str) -> list[str]:
    """The scopes of a person whose grant is not revoked.

    Raises:
        Refused: it is, or is another's.
    """
    try:
        said: Any = json.loads(_file(grant).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = {}
    if said.get("name") != name:
        raise Refused(f"{name or 'Whoever asks'} has signed out, or never signed in.")
    return people().get(name, [])


def _file(grant: str) -> Path:
    if not _ID.fullmatch(grant):
        raise Refused("That is no grant.")
    state_folder.made(get_settings().state_dir, FOLDER)
    return state_folder.made(get_settings().state_dir, FOLDER, "grants") / f"{grant}.json"


def make_keys() -> None:
    """Make all keys that are missing."""
    for name in (ISSUER_KEYS, *AUDIENCES):
        ring(name)
