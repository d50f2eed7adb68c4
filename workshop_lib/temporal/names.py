"""Names that people give: of sessions, repairs, agents and schedules. One rule, wherever they come in.

A name becomes part of a workflow's id, of keys and of lists, so it is checked before anything is started or
sent: by the command line as it reads its arguments, and by the clients that MCP servers and notebooks use.
"""

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError

MAX_NAME = 200  # characters; keys are made of it, and the server adds the time to a schedule's name
MAX_ID_BYTES = 1000  # what the server takes


def check_name(name: str, what: str = "name", *, known: bool = False) -> str:
    """The name, if it is one.

    Args:
        what: what it names, as in "session".
        known: of something that is there already. Another program may have named it, so all that the server
            can know is a name.

    Raises:
        WorkshopError: it is empty or too long, or a new one holds what cannot be seen or ends in blanks.
    """
    if not isinstance(name, str) or not name.strip():
        problem = "is empty"
    elif any("\ud800" <= character <= "\udfff" for character in name):
        problem = "holds half a character"
    elif len(name) > (MAX_ID_BYTES if known else MAX_NAME) or len(name.encode()) > MAX_ID_BYTES:
        problem = f"is {len(name):,} characters long"
    elif not known and not name.isprintable():
        problem = "holds a character that cannot be seen"
    elif not known and name != name.strip():
        problem = "begins or ends with a blank"
    else:
        return name
    shown = harmless.line(name, 40)
    raise WorkshopError(
        f"The {what}'s name {problem}{f': {shown}' if shown else ''}.",
        expected=f"1 to {MAX_NAME} characters that can be seen, blanks only between them.",
        fix="use another name.",
    )
