"""What the commands of `gpumarket provider` share: options, questions, and how facts are shown."""

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from contracts.chain.client import Chain, connect
from contracts.cli.output import marked
from contracts.settings import load_settings
from contracts.wallet import keys

Key = Annotated[str | None, typer.Option("--key", help="Name of the key; not needed if there is only one")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen and its cost; send nothing")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before")]


def open_chain(key: str | None) -> tuple[Chain, str]:
    """The chain, and the name of the key to use."""
    settings = load_settings(key=key)
    name = keys.choose(settings.key)
    return connect(settings), name


def facts(rows: Mapping[str, str], title: str | None = None) -> Table:
    """Names and values, one a line."""
    table = Table(title=title, show_header=False, box=None, title_justify="left")
    for what, value in rows.items():
        table.add_row(marked("[bold]{}[/]", what), value)
    return table


def columns(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of these columns, not cut to the terminal's width."""
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(str(row[name]) for name in names))
    return table


def ask_to_go_on() -> None:
    """Raises Abort unless somebody says yes."""
    if not typer.confirm("Go on?" if sys.stdin.isatty() else "--yes was not given. Go on?"):
        raise typer.Abort
