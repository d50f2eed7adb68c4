"""Reads the project's Terraform and holds it against a committed table of the provider's schema.

Terraform itself would have to fetch the provider. The table (`schemas/temporalcloud.json`) is taken from the
provider's documentation at the version it names. Understood is what the project's files use: literals, and
references to variables and resources; anything else is reported as not understood, so nothing goes by unseen.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hcl2
from hcl2.utils import SerializationOptions

TABLE = json.loads(Path(__file__).with_name("schemas").joinpath("temporalcloud.json").read_text())
# The provider's types, and what a literal of each is read as.
_LITERALS = {"String": str, "Number": (int, float), "Boolean": bool, "Attributes": dict, "Map": dict,
             "Block": list, "List": list, "Set": list}  # fmt: skip
_EXPRESSION = re.compile(r"\$\{([^}]*)\}")
_REFERENCE = re.compile(r"[a-z_]+(\.\w+)+")
_PLAIN = SerializationOptions(
    with_comments=False, explicit_blocks=False, strip_string_quotes=True, preserve_heredocs=False
)
Values = dict[str, Any]


@dataclass(frozen=True)
class Terraform:
    """The blocks of a folder's files: those of the settings and the provider, and the named ones by name."""

    terraform: list[Values]
    provider: Values
    resource: dict[str, Values]
    variable: dict[str, Values]
    output: dict[str, Values]

    @property
    def places(self) -> Iterator[tuple[str, Values]]:
        """Everything that may hold a reference, with what it is called."""
        yield from self.provider.items()
        yield from self.resource.items()
        yield from ((f"output.{name}", body) for name, body in self.output.items())

    def of_type(self, kind: str) -> dict[str, Values]:
        """The resources of a type, by name."""
        prefix = f"temporalcloud_{kind}."
        return {
            key.removeprefix(prefix): body
            for key, body in self.resource.items()
            if key.startswith(prefix)
        }

    def resolved(self, value: Any, variables: Values) -> Any:
        """A value with each reference replaced: what the provider computes by a text made of its name."""
        if isinstance(value, dict):
            return {key: self.resolved(part, variables) for key, part in value.items()}
        if isinstance(value, list):
            return [self.resolved(part, variables) for part in value]
        if not isinstance(value, str):
            return value
        whole = _EXPRESSION.fullmatch(value)
        if whole:
            return self._looked_up(whole[1], variables)
        return _EXPRESSION.sub(lambda found: str(self._looked_up(found[1], variables)), value)

    def _looked_up(self, reference: str, variables: Values) -> Any:
        kind, name, *rest = reference.split(".")
        if kind == "var":
            given = variables.get(name, self.variable[name].get("default"))
            assert given is not None, f"variable {name} has no default"
            return given
        value: Any = self.resource[f"{kind}.{name}"]
        for part in rest:
            if part not in value:  # the provider computes it
                title = self.resolved(self.resource[f"{kind}.{name}"]["name"], variables)
                identifier = f"{title}.a1b2c"
                return identifier if part == "id" else f"{identifier}.tmprl.cloud:7233"
            value = value[part]
        return self.resolved(value, variables)


def read(text: str) -> Terraform:
    """The blocks of a folder's files, joined."""
    found = hcl2.loads(text, serialization_options=_PLAIN)

    def named(kind: str) -> Values:
        return {name: body for block in found.get(kind, []) for name, body in block.items()}

    resources = {
        f"{kind}.{name}": body
        for block in found.get("resource", [])
        for kind, bodies in block.items()
        for name, body in bodies.items()
    }
    return Terraform(
        found.get("terraform", []), named("provider"), resources, named("variable"), named("output")
    )


def faults(files: Terraform) -> list[str]:
    """What Terraform or the provider would refuse, a line each; none where all is well."""
    found = [line for key, body in files.resource.items() for line in _resource_faults(key, body)]
    for name, body in files.provider.items():
        found += _body_faults(f"provider {name}", body, TABLE["provider"])
    used = set()
    for place, body in files.places:
        for expression in _expressions(body):
            used.add(expression)
            found += _reference_faults(files, place, expression)
    declared = {f"var.{name}" for name in files.variable}
    return found + [f"{name} is never used" for name in sorted(declared - used)]


def _resource_faults(key: str, body: Values) -> list[str]:
    schema = TABLE["resources"].get(key.split(".")[0])
    return _body_faults(key, body, schema) if schema else [f"{key}: unknown resource"]


def _body_faults(place: str, body: Values, schema: Values) -> list[str]:
    required, nested = schema.get("required", {}), schema.get("nested", {})
    known = required | schema.get("optional", {})
    found = [f"{place}: {name} is missing" for name in required if name not in body]
    for name, value in body.items():
        if name not in known:
            found.append(f"{place}: unknown argument {name}")
            continue
        literal = not (isinstance(value, str) and "${" in value)
        kind = _LITERALS[known[name].split()[0]]
        if literal and (
            not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))
        ):
            found.append(f"{place}: {name} is no {known[name]}")
        elif name in TABLE["values"] and value not in TABLE["values"][name]:
            found.append(f"{place}: {name} cannot be {value}")
        elif name in nested:
            for part in value if isinstance(value, list) else [value]:
                found += _body_faults(f"{place}.{name}", part, nested[name])
    return found


def _expressions(value: Any) -> Iterator[str]:
    parts = value.values() if isinstance(value, dict) else value
    if isinstance(value, str):
        yield from (found[1] for found in _EXPRESSION.finditer(value))
    elif isinstance(value, dict | list):
        for part in parts:
            yield from _expressions(part)


def _reference_faults(files: Terraform, place: str, expression: str) -> list[str]:
    if not _REFERENCE.fullmatch(expression):
        return [f"{place}: {expression} is not understood"]
    kind, name, *rest = expression.split(".")
    if kind == "var":
        return [] if name in files.variable and not rest else [f"{place}: no {expression}"]
    if f"{kind}.{name}" not in files.resource or kind not in TABLE["resources"]:
        return [f"{place}: no {kind}.{name}"]
    schema = TABLE["resources"][kind]
    for part in rest:
        if not any(
            part in schema.get(group, {}) for group in ("required", "optional", "read_only")
        ):
            return [f"{place}: {kind} has no {'.'.join(rest)}"]
        schema = TABLE["resources"][kind].get("nested", {}).get(part, {})
    return []
