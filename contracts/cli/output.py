"""How a command prints what it found."""

import os
from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Protocol

import typer
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from contracts.amounts import format_amount
from contracts.text import without_controls

SENTENCE = 24  # characters of a cell with spaces: it may go on in a line below, where ids and amounts may not
NARROWEST = 10  # columns of the screen for a sentence, or a name


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
    is_narrow = console.is_terminal or "COLUMNS" in os.environ
    wide = max(PlainConsole(width=10_000).measure(table).maximum, console.width)
    (console if is_narrow else PlainConsole(file=console.file, width=wide)).print(
        whole(table, console.width if is_narrow else wide)
    )


def whole(table: Table, width: int) -> Group:
    """A table as `print_whole` shows it, on a terminal of so many columns."""
    title, table.title = table.title, None
    caption, table.caption = table.caption, None
    above = [Text(without_controls(str(title)), style="table.title", overflow="fold")] if title else []
    below = [Text(without_controls(str(caption)), style="table.caption", overflow="fold")] if caption else []
    return Group(*above, *_body(table, width), *below)


def one_line(text: str) -> str:
    """A stranger's text as a cell or a line may show it."""
    return without_controls(text, keep="").replace("\N{REPLACEMENT CHARACTER}", " ")


def _body(table: Table, width: int) -> list[RenderableType]:
    if PlainConsole(width=10_000).measure(table).maximum <= width:
        return [table]
    if sum((_narrowest(column) if _folds(column) else _width(column)) + 2 for column in table.columns) - 2 <= width:
        for column in table.columns:
            column.no_wrap, column.overflow = not _folds(column), "fold"
        return [table]
    return list(_rows(table)) if table.show_header else list(_facts(table, width))


def _cells(column: Column) -> list[Text]:
    return [
        cell if isinstance(cell, Text) else Text(without_controls(str(cell))) for cell in (column.header, *column.cells)
    ]


def _folds(column: Column) -> bool:
    """Whether it holds sentences, or names that may be long."""
    return column.overflow == "fold" or any(len(cell) > SENTENCE and " " in cell.plain for cell in _cells(column))


def _narrowest(column: Column) -> int:
    if column.overflow == "fold":
        return min(NARROWEST, _width(column))
    words = [len(word) for cell in _cells(column) for word in cell.plain.split()]
    return max(NARROWEST, *words)


def _width(column: Column) -> int:
    return max(cell_len(line) for cell in _cells(column) for line in (cell.plain or " ").splitlines())


def _rows(table: Table) -> Iterator[Text]:
    """A line for each cell, beside its column's name; an empty line between the rows."""
    names = [_cells(column)[0].plain.replace("-\n", "") for column in table.columns]
    label = max(map(len, names)) + 2
    for number, row in enumerate(zip(*(_cells(column)[1:] for column in table.columns), strict=True)):
        if number:
            yield Text()
        for name, cell in zip(names, row, strict=True):
            if cell.plain:
                yield _folded(Text(name.ljust(label), style="bold") + cell)


def _facts(table: Table, width: int) -> Iterator[Text]:
    """Names and what is so called; below the name where both don't fit in a line."""
    label = _width(table.columns[0]) + 2
    for name, *cells in zip(*(_cells(column)[1:] for column in table.columns), strict=True):
        value = Text("  ").join(cells)
        if label + value.cell_len <= width or " " in value.plain:
            name.pad_right(label - name.cell_len)
            yield _folded(name + value)
        else:
            yield name
            yield _folded(Text("  ") + value)


def _folded(text: Text) -> Text:
    text.overflow = "fold"
    return text


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
