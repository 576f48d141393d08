"""Log lines: a full disk takes them and not the program, and what strangers write steers no terminal."""

import sys
from typing import Any

import pytest
import structlog

from contracts.program.logs import ToldOnce, configure_logs, log_stream, log_warnings_only


@pytest.fixture(autouse=True)
def as_before() -> Any:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_a_line_that_cannot_be_written_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        logger = structlog.PrintLogger(log_stream())
        logger.info("x" * 100_000)  # more than any buffer holds
        monkeypatch.undo()
        with pytest.raises(OSError):  # so it would have been without
            structlog.PrintLogger(full).info("x")
        with pytest.raises(OSError):
            full.close()


def test_a_line_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.PrintLogger(log_stream()).info("told")
    assert capsys.readouterr().err == "told\n"


def test_a_stranger_s_text_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    structlog.get_logger("fresh").info("api.refused", path="/v1/jobs/\x1b]0;owned\x07\x9b2J", status=401)
    said = capsys.readouterr().err
    assert "/v1/jobs/" in said and "401" in said
    assert not {"\x1b", "\x07", "\x9b"} & set(said)


def test_a_commands_warning_steers_no_terminal_either(capsys: pytest.CaptureFixture[str]) -> None:
    log_warnings_only()
    structlog.get_logger("command").warning("market.unreadable_item", item="id \x1b]0;owned\x07", problem="no\x9b2J")
    structlog.get_logger("command").info("not shown")
    said = capsys.readouterr().err
    assert "market.unreadable_item" in said and "id " in said and "not shown" not in said
    assert "\x1b" not in said.replace("\x1b[", "") and "\x9b" not in said


def test_what_was_told_is_not_told_again_while_it_is_remembered() -> None:
    told = ToldOnce(most=2)
    assert [told.is_new(what) for what in "aabab"] == [True, False, True, False, False]
    assert told.is_new("c") and told.is_new("a")  # forgotten for it
    assert not told.is_new("c")
