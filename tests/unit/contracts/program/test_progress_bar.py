"""Progress is for who looks: nothing of it for quick commands whose output goes elsewhere."""

from io import StringIO

import pytest
from rich.console import Console

from contracts.program import progress_bar


def shown(terminal: bool) -> str:
    file = StringIO()
    console = Console(file=file, force_terminal=terminal, width=80)
    with progress_bar.watching(console) as watch:
        watch("messages", 1_999, 4_000)
        watch("messages", 2_000, 4_000)
        watch("blobs", 7)
        watch("tables")
    return file.getvalue()


def test_a_bar_on_a_terminal() -> None:
    shows = shown(terminal=True)
    assert "tables" in shows  # the last one: those before went by too quickly to be drawn
    assert shows.endswith("\x1b[2K")  # and it is wiped away


def test_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(terminal=False) == ""
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.0)
    assert shown(terminal=False).splitlines() == [
        "messages 1,999 of 4,000", "messages 2,000 of 4,000", "blobs 7", "tables"
    ]  # fmt: skip
