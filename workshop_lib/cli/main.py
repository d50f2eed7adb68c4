"""The `workshop` command: its commands by name, each loaded when somebody types it.

The commands only read arguments, call the library and say what came of it. Exit status: 0, 1 (it failed),
2 (wrong usage), 130 (Ctrl-C); what becomes of it where stdout cannot be written is said in `edge`. With
`--json`, stdout holds one JSON document, in ASCII, and nothing else; everything for people goes to stderr.
Left out: the commands, and what ends the program (`workshop_lib.__main__`).
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

# A command or a group of commands: a function, and the module of this package that it is in.
COMMANDS = {
    "up": "services",
    "down": "services",
    "status": "services",
    "ask": "chat",
    "chat": "chat",
    "sessions": "chat",
    "doctor": "lab",
    "progress": "lab",
    "clean": "lab",
    "notebook": "lab",
    "mcp": "mcp",
    "repair": "repair",
}


class Later(TyperCommand):
    """A command that is not loaded before it is typed: what it stands on takes a second to import."""

    def load(self) -> Any:
        """The command itself."""
        module = import_module(f"workshop_lib.cli.{COMMANDS[str(self.name)]}")
        group = typer.main.get_group(module.app)
        return group.commands.get(str(self.name), group)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Typer asks for this when the command is to run."""
        return self.load().make_context(*arguments, **options)

    def read_help(self) -> None:
        """Take the help, which is the docstring of a function, from a source that is not imported."""
        source = Path(__file__).with_name(f"{COMMANDS[str(self.name)]}.py")
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == self.name:
                self.help = ast.get_docstring(node)


class Commands(TyperGroup):
    """The commands, in their order."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: Later(name) for name in COMMANDS}

    def format_help(self, *arguments: Any) -> None:
        """Typer asks for this to show what there is."""
        for command in self.commands.values():
            if isinstance(command, Later):
                command.read_help()
        super().format_help(*arguments)


app = typer.Typer(
    cls=Commands,
    help="A workshop on durable AI agents. Without a command: the lab, with JupyterLab.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def lab(
    context: typer.Context,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    port: Annotated[int | None, typer.Option(help="JupyterLab's port.", min=1, max=65535)] = None,
) -> None:
    """Start the dev server, examine the machine and open JupyterLab; stop what was started at the end."""
    if context.invoked_subcommand is None:
        from workshop_lib.cli.lab import run_lab  # late, like every command

        run_lab(browser=browser, port=port)
