"""Reads a chaos plan, a person's file: whatever is wrong with it is said in a sentence, with its line.

YAML here is plain data: no tag makes an object, nothing refers to another place, no key is there twice. Left
out: what a plan may hold (`plan`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError
from workshop_lib.temporal.chaos.plan import ChaosPlan

MAX_FILE = 64_000  # bytes
MAX_DEPTH = 10  # a plan needs 6


def chaos_plan(source: "str | Path | dict[str, Any] | ChaosPlan") -> ChaosPlan:
    """A plan from a YAML file, from YAML text (several lines), or from data.

    Raises:
        WorkshopError: there is no such file, or it is not a plan; says where in it.
    """
    if isinstance(source, ChaosPlan):
        return source
    if isinstance(source, dict):
        return _checked(source, "The chaos plan", "")
    if isinstance(source, str) and "\n" in source:
        return _checked(_read_yaml(source, "The chaos plan"), "The chaos plan", source)
    path = Path(source)
    title = f"The chaos plan {harmless.line(path, 200)}"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise _bad(f"{title} does not exist", "the path of a YAML file.") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise _bad(f"{title} cannot be read: {reason}") from None
    if len(content) > MAX_FILE:
        raise _bad(f"{title} is too large", f"at most {MAX_FILE:,} bytes.")
    return _checked(_read_yaml(text, title), title, text)


def _bad(what: str, expected: str | None = None, fix: str | None = None) -> WorkshopError:
    return WorkshopError(
        f"{what}.",
        expected=expected
        or "`seed`, and `faults`: a list of entries such as {place: model, kind: rate_limit, chance: 0.3}.",
        fix=fix,
    )


def _read_yaml(text: str, title: str) -> Any:
    import yaml  # here: workflow code comes by this module, and needs no YAML

    class Loader(yaml.SafeLoader):
        """Plain data, each of it written out: no references, and no key twice."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(None, None, "it refers to another place", mark)
            self.depth += 1
            if self.depth > MAX_DEPTH:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(None, None, "it is nested too deeply", mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set[str]()
            for key, _ in node.value:
                if str(key.value) in seen:
                    said = "this key is there twice"
                    raise yaml.MarkedYAMLError(None, None, said, key.start_mark)
                seen.add(str(key.value))
            made = super().construct_mapping(node, deep)
            if any(not isinstance(key, str) for key in made):
                said = "YAML reads one of these keys as no text (`on` is true): it is `when`"
                raise yaml.MarkedYAMLError(None, None, said, node.start_mark)
            return made

    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _bad(f"{title} is not YAML{where}: {harmless.line(error.problem, 200)}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = harmless.line(getattr(error, "reason", None) or "it cannot be read", 200)
        raise _bad(f"{title} is not YAML: {reason}") from None


def _checked(data: Any, title: str, text: str) -> ChaosPlan:
    try:
        return ChaosPlan.model_validate(data)
    except ValidationError as error:
        first, *more = error.errors(include_url=False, include_context=False, include_input=False)
        place = [part for part in first["loc"] if isinstance(part, int) or part.isidentifier()]
        line = _line_of(text, place)
        words = ["".join(f" fault {p + 1}" if isinstance(p, int) else f" {p}" for p in place)]
        said = first["msg"].removeprefix("Value error, ").strip(".")
        others = f" ({len(more)} more)" * bool(more)
        where = f", line {line}" if line else ""
        name = words[0].replace(" faults fault", " fault").strip() or "the whole"
        raise _bad(harmless.line(f"{title}{where}: {name}: {said}{others}", 600)) from None


def _line_of(text: str, place: Sequence[str | int]) -> int:
    """The line on which a part of the data stands; 0 where that is not known."""
    if not text:
        return 0
    import yaml

    node = yaml.compose(text, yaml.SafeLoader)
    for part in place:
        found = None
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            found = node.value[part] if part < len(node.value) else None
        elif isinstance(node, yaml.MappingNode):
            found = next((value for key, value in node.value if key.value == part), None)
        if found is None:
            break
        node = found
    return node.start_mark.line + 1 if node else 0
