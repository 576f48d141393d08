"""How a command prints what it found."""

import os
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from contracts.amounts import format_amount
from contracts.text import without_controls

SENTENCE = 24  # characters of a cell with spaces: it may go on in a line below, where ids and amounts may not
NARROWEST = 16  # a column of sentences


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


class PlainConsole(Console):
    """Prints strings as they are, since what they say may come from strangers: no markup, no names of emoji, nothing
    that a terminal would obey. What is to be coloured is a Text: `marked`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(without_controls(text), **options)


def marked(template: str, *values: object) -> Text:
    """A template with markup, and values in its `{}` that are shown as they are."""
    return Text.from_markup(template.format(*(escape(without_controls(str(value))) for value in values)), emoji=False)


def print_whole(console: Console, table: Table) -> None:
    """No amount and no id is cut. What is wider than the terminal goes on below: sentences first, and if that is not
    enough, each row becomes a list of its cells. A pipe gets the table as wide as it is.
    """
    title, table.title = table.title, None
    caption, table.caption = table.caption, None
    if title:
        console.print(title, style="table.title", highlight=False, overflow="fold")
    _print_body(console, table)
    if caption:
        console.print(caption, style="table.caption", highlight=False, overflow="fold")


def one_line(text: str) -> str:
    """A stranger's text as a cell or a line may show it."""
    return without_controls(text, keep="").replace("\N{REPLACEMENT CHARACTER}", " ")


def _print_body(console: Console, table: Table) -> None:
    needed = PlainConsole(width=10_000).measure(table).maximum
    if needed <= console.width or not (console.is_terminal or "COLUMNS" in os.environ):
        PlainConsole(file=console.file, width=max(needed, console.width)).print(table)
        return
    sentences = [column for column in table.columns if _has_sentences(column)]
    widths = sum(_width(column) + 2 for column in table.columns if column not in sentences)
    if widths + (NARROWEST + 2) * len(sentences) <= console.width:
        for column in table.columns:
            column.no_wrap, column.overflow = column not in sentences, "fold"
        console.print(table)
    elif table.show_header:
        _print_rows(console, table)
    else:
        _print_facts(console, table)


def _cells(column: Column) -> list[Text]:
    return [
        cell if isinstance(cell, Text) else Text(without_controls(str(cell))) for cell in (column.header, *column.cells)
    ]


def _has_sentences(column: Column) -> bool:
    return any(len(cell) > SENTENCE and " " in cell.plain for cell in _cells(column))


def _width(column: Column) -> int:
    return max(cell.cell_len for cell in _cells(column))


def _print_rows(console: Console, table: Table) -> None:
    """A line for each cell, beside its column's name; an empty line between the rows."""
    names = [str(column.header) for column in table.columns]
    label = max(map(len, names)) + 2
    for number, row in enumerate(zip(*(_cells(column)[1:] for column in table.columns), strict=True)):
        if number:
            console.print()
        for name, cell in zip(names, row, strict=True):
            if cell.plain:
                console.print(Text(name.ljust(label), style="bold") + cell, overflow="fold")


def _print_facts(console: Console, table: Table) -> None:
    """Names and what is so called; below the name where both don't fit in a line."""
    label = _width(table.columns[0]) + 2
    for name, *cells in zip(*(_cells(column)[1:] for column in table.columns), strict=True):
        value = Text("  ").join(cells)
        if label + value.cell_len <= console.width or " " in value.plain:
            name.pad_right(label - name.cell_len)
            console.print(name + value, overflow="fold")
        else:
            console.print(name)
            console.print(Text("  ") + value, soft_wrap=True)


console = PlainConsole()
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
