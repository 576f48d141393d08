"""How a command prints what it found."""

from enum import StrEnum
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from contracts.amounts import format_amount
from contracts.api.bodies import Info


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


def print_whole(console: Console, table: Table) -> None:
    """As wide as the table needs, on narrower terminals and in pipes too: no amount and no id is cut."""
    needed = Console(width=10_000).measure(table).maximum
    Console(file=console.file, width=max(needed, console.width)).print(table)


console = Console()
say = partial(console.print, highlight=False, soft_wrap=True)

OutputOption = Annotated[Output, typer.Option("--output", "-o", help="As a table, or as JSON for programs")]


def tokens(amount: int, info: Info) -> str:
    return f"{format_amount(amount, info.token_decimals)} {info.token_symbol}"
