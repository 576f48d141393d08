"""How a command prints what it found."""

from enum import StrEnum
from functools import partial
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.table import Table

from contracts.amounts import format_amount


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


class Token(Protocol):
    """What a market's /v1/info says of its token. (Its body would bring all orders along, and take a second.)"""

    @property
    def token_decimals(self) -> int: ...

    @property
    def token_symbol(self) -> str: ...


def tokens(amount: int, info: Token) -> str:
    """In whole tokens, with the token's symbol: "12.5 USDC"."""
    return f"{format_amount(amount, info.token_decimals)} {info.token_symbol}"
