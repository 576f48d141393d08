"""The market's log lines, as an operator's terminal gets them."""

from typing import Any

import pytest
import structlog

from contracts.logs import configure_logs


@pytest.fixture(autouse=True)
def as_before() -> Any:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_a_stranger_s_text_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    structlog.get_logger("fresh").info("api.refused", path="/v1/jobs/\x1b]0;owned\x07\x9b2J", status=401)
    said = capsys.readouterr().err
    assert "/v1/jobs/" in said and "401" in said
    assert not {"\x1b", "\x07", "\x9b"} & set(said)
