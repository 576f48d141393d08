"""Benchmarks: one module each, with a `main(json: bool)` that measures and hands its figures to `report`."""

import json as json_format
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

Figure = tuple[str, float, str]  # name, value, unit


def report(figures: Iterable[Figure], json: bool) -> None:
    """Prints figures as a table, or as one JSON object a line (each as soon as it is measured)."""
    if json:
        for name, value, unit in figures:
            print(json_format.dumps({"name": name, "value": value, "unit": unit}), flush=True)
        return
    table = Table("name", "value", "unit")
    table.columns[1].justify = "right"
    for name, value, unit in figures:
        table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}", unit)
    Console().print(table)
