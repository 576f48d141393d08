"""`gpumarket market settings`: what holds, and where it comes from. Secrets are not shown."""

import os
import sys
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel
from rich.table import Table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from contracts.cli.output import Output, PlainConsole, print_whole
from contracts.program.operator_settings import APPROVER_SECTION, MARKET_FILE, read_market_file
from contracts.settings import CONFIG_NAME, home, load_settings, read_config
from contracts.strict_json import write_json
from market.approver.settings import load_approver_settings
from market.runtime.settings import load_market_settings


def show_settings(output: Output) -> None:
    rows = [
        *_rows("market", load_market_settings(), "GPUMARKET_MARKET_", MARKET_FILE, read_market_file(None)),
        *_rows(
            APPROVER_SECTION,
            load_approver_settings(),
            "GPUMARKET_APPROVER_",
            f"{MARKET_FILE} [{APPROVER_SECTION}]",
            read_market_file(APPROVER_SECTION),
        ),
        *_rows("common", load_settings(), "GPUMARKET_", CONFIG_NAME, read_config(home() / CONFIG_NAME)),
    ]
    if output is Output.JSON:
        print(write_json(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    print_whole(PlainConsole(file=sys.stdout), table)


def _rows(of: str, settings: BaseModel, prefix: str, file: str, in_file: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, value in settings.model_dump(mode="json").items():
        variable = prefix + name.upper()
        source = variable if os.environ.get(variable) else file if name in in_file else "default"
        rows.append({"of": of, "setting": name, "value": _without_secrets(name, value), "from": source})
    return rows


def _without_secrets(name: str, value: Any) -> Any:
    if name == "database_url":
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):
            return "(not a URL)"
        hidden = {key: "hidden" for key in url.query if "password" in key}
        return url.update_query_dict(hidden).render_as_string(hide_password=True)
    if name == "rpc_url":  # of providers of nodes, the path or the query is the key
        url = urlsplit(value)
        host = url.netloc.rpartition("@")[2]
        return f"{url.scheme}://{host}{'/***' if url.path.strip('/') or url.query else ''}"
    return value
