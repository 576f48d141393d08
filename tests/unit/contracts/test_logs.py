"""A full disk takes log lines, not the program."""

import sys

import pytest
import structlog

from contracts.logs import log_stream


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
