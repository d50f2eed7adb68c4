"""Tools of an MCP server that have changed since the session has met them: held back until a person accepts.

What a server says of a tool goes to the model as it stands, so a changed description is a way to give it
orders, and a changed schema one to have it send more than before. A tool is believed when it is first listed;
its fingerprint goes with the session from run to run. Left out: a tool whose definition stays and that does
something else, which nobody can see from here.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel
from temporalio import workflow

FINGERPRINT = "fingerprint"  # of a tool: key of its `_meta` in the history
MAX_KNOWN = 1_000  # tools of a session; a server that lists ever new ones is believed no longer


class HeldTool(BaseModel):
    """A tool that is held back.

    Attributes:
        team, name: whose it is, and what its server calls it.
        was, now: its fingerprints, as the session knows it (empty for one too many) and as it is listed.
        description: what the server says of it now. Written by others.
    """

    team: str
    name: str
    was: str
    now: str
    description: str

    @property
    def sentence(self) -> str:
        """What people and models are told."""
        return (
            f"The tool {self.name} of the {self.team} team is not what it was and is held back until somebody"
            f" accepts it (`chat.accept_tool({self.name!r})`, `workshop sessions accept`)."
        )


def fingerprint(name: str, description: str | None, schema: dict[str, Any], title: str = "") -> str:
    """What a model is told of a tool, as SHA-256 of its canonical JSON."""
    told = {"name": name, "title": title, "description": description or "", "input_schema": schema}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class KnownTools:
    """The tools that a session knows. Used in a workflow.

    Args:
        known: fingerprints by team and tool ("finance/stock_price"), as they go from run to run.
    """

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known
        self._held: dict[str, HeldTool] = {}

    def lists(self, team: str) -> None:
        """A team's tools are listed from here on, each by `listed`."""
        self._held = {key: one for key, one in self._held.items() if one.team != team}

    def listed(self, team: str, name: str, now: str, description: str) -> HeldTool | None:
        """A tool stands in a listing. Returns it where the model must not be told of it."""
        key = f"{team}/{name}"
        if key not in self.known and len(self.known) < MAX_KNOWN:
            self.known[key] = now
        was = self.known.get(key, "")
        self._held.pop(key, None)
        # A run from before tools were held may have been told of this one.
        if was != now and workflow.patched(f"held-tool-{key}-{now[:12]}"):
            self._held[key] = HeldTool(
                team=team, name=name, was=was, now=now, description=description
            )
        elif was != now:
            self.known[key] = now
        return self._held.get(key)

    @property
    def held(self) -> list[HeldTool]:
        """Those that are held back."""
        return list(self._held.values())

    def find(self, tool: str, fingerprint: str = "") -> HeldTool:
        """The one that is meant.

        Args:
            tool: its name, or team and name.
            fingerprint: how it is now begins with this.

        Raises:
            ValueError: there is none, or not just one.
        """
        found = [one for key, one in self._held.items() if tool in (key, one.name)]
        if len(found) == 1 and found[0].now.startswith(fingerprint):
            return found[0]
        names = ", ".join(f"{key} ({one.now[:12]})" for key, one in self._held.items())
        if len(found) == 1:
            raise ValueError(f"{tool} has another fingerprint by now; held back are {names}")
        raise ValueError(
            f"no tool {tool!r} is held back; there are {names}"
            if names and not found
            else f"{tool!r} may be one of several: {names}"
            if found
            else "no tool of this session is held back"
        )

    def accept(self, tool: str, fingerprint: str = "") -> HeldTool:
        """From now on it is known as it is now. Raises as `find`."""
        held = self.find(tool, fingerprint)
        key = f"{held.team}/{held.name}"
        self.known[key] = held.now
        del self._held[key]
        return held
