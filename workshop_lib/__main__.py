"""The `workshop` command, as a script and as `python -m workshop_lib`."""


def main() -> None:
    """Run it. What it needs is imported when all is prepared for that to fail, or to be interrupted."""
    from workshop_lib import edge

    edge.begin()
    from workshop_lib.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
