"""The `workshop` command, as a script and as `python -m workshop_lib`: what goes wrong becomes a few lines
on stderr and status 1. Left out: the commands (`cli.main`)."""

import sys

from workshop_lib import edge


def main() -> None:
    """Run it. What it needs is imported when all is prepared for that to fail, or to be interrupted."""
    edge.begin()
    status: str | int | None
    try:
        from workshop_lib.cli.main import app

        status = app()
    except KeyboardInterrupt:
        status = 130
    except SystemExit as ended:
        status = ended.code
    except BaseException as error:
        edge.say_error(error)
        status = 1
    if registry := sys.modules.get("workshop_lib.lab.registry"):
        registry.stop_all()
    edge.end(status)


if __name__ == "__main__":
    main()
