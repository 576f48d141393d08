"""What a worker tells of what a recipe prints: new lines only, with checkpoints, and not too often."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.worker_leases import job_key, lease_tools, make_chain, make_folder, make_spec
from worker.lease import reporting
from worker.lease.reporting import LOG_SECONDS, Reporter, what_is_new


@pytest.mark.parametrize(
    ("told", "tail", "new"),
    [
        ("", "", ""),
        ("", "one\n", "one\n"),
        ("one\n", "one\n", ""),
        ("one\n", "one\ntwo\n", "two\n"),
        ("a" * 600 + "\n", "a" * 100 + "\nb\n", "a" * 100 + "\nb\n"),  # its end is not there any more: all of it
        ("x" * 600 + "one\n", "x" * 550 + "one\ntwo\n", "two\n"),
        ("one\n", "one\none\n", ""),  # the same again is not told again
    ],
)
def test_what_is_new(told: str, tail: str, new: str) -> None:
    assert what_is_new(told, tail) == new


class Market:
    def __init__(self) -> None:
        self.logs: list[tuple[int, str]] = []

    def put_blob(self, path: Path, ref: Any) -> None:
        pass

    def post_progress(self, body: Any) -> None:
        pass

    def post_report(self, body: Any) -> None:
        assert body.report.kind == "log"
        self.logs.append((body.report.n, body.text))


def test_with_the_first_checkpoint_then_once_in_a_while_and_with_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    spec = make_spec()
    folder, clock, log = make_folder(spec), [1000.0], [""]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: clock[0])
    market: Any = Market()
    reporter = Reporter(folder, lease_tools(), market, job_key(folder, spec), lambda: log[0])
    for record in make_chain(spec, 5, tmp_path / "states"):
        log[0] += f"line {record.index}\n"
        folder.add_checkpoint(record)
        reporter._report_all()
        clock[0] += LOG_SECONDS[0] / 2.5
    assert market.logs == [(1, "line 1\n"), (4, "line 2\nline 3\nline 4\n"), (5, "line 5\n")]
    log[0] += "still at it\n"
    reporter._report_all()
    assert len(market.logs) == 3
    clock[0] += LOG_SECONDS[1]
    reporter._report_all()
    assert market.logs[3:] == [(5, "still at it\n")]
