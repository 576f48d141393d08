"""An alarm is given once, however often its cause is met."""

from typing import Any

import pytest
import structlog

from market.approver.auditing import alarms
from market.approver.auditing.alarms import Alarms
from market.approver.metrics import ApproverMetrics


def test_rounds_that_meet_the_same_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, nothing = ApproverMetrics(), Any
    given = Alarms(nothing, metrics, "me")  # type: ignore[arg-type]  # no dispute is looked at
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            for lease, text in (("0xa", "no money for 1"), ("0xa", "no money for 2"), ("0xb", "no money for 1")):
                given.give(lease, text)
        assert len(logs) == metrics.alarms.labels("me")._value.get() == 3
        monkeypatch.setattr(alarms, "AGAIN", 0.0)  # it lasts
        given.give("0xa", "no money for 1")
    assert len(logs) == 4
