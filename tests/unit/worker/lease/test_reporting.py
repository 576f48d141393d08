"""What a worker tells of what a recipe prints: each line once, with checkpoints, and not too often."""

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import UserError
from tests.support.worker_leases import job_key, lease_tools, make_chain, make_folder, make_spec
from worker.lease import reporting
from worker.lease.printed import Printed
from worker.lease.reporting import LOG_SECONDS, Reporter


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
    folder, clock = make_folder(spec), [1000.0]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: clock[0])
    market: Any = Market()
    printed, trains = Printed(folder.printed, lambda: None), [True]
    reporter = Reporter(folder, lease_tools(), market, job_key(folder, spec), printed, lambda: trains[0])
    for record in make_chain(spec, 5, tmp_path / "states"):
        printed.write(f"line {record.index}\n".encode())
        folder.add_checkpoint(record)
        reporter._report_all()
        clock[0] += LOG_SECONDS[0] / 2.5
    assert market.logs == [(1, "line 1\n"), (4, "line 2\nline 3\nline 4\n"), (5, "line 5\n")]
    printed.write(b"still at it\nin the middle")
    reporter._report_all()
    assert len(market.logs) == 3
    clock[0] += LOG_SECONDS[1]
    reporter._report_all()
    assert market.logs[3:] == [(5, "still at it\n")]
    trains[0] = False  # nothing more will come, so it is told at once
    reporter._report_all()
    assert market.logs[4:] == [(5, "in the middle")]


def test_a_line_that_the_market_did_not_take_is_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    spec = make_spec()
    folder = make_folder(spec)
    market: Any = Market()
    printed = Printed(folder.printed, lambda: None)
    reporter = Reporter(folder, lease_tools(), market, job_key(folder, spec), printed, lambda: False)
    printed.write("".join(f"line {number} is long enough to fill some reports\n" for number in range(900)).encode())
    post, fails = market.post_report, [False, True]

    def sometimes(body: Any) -> None:
        if fails and fails.pop(0):
            raise UserError("the market is away")
        post(body)

    market.post_report = sometimes
    with pytest.raises(UserError):
        reporter._report_all()
    reporter._report_all()
    told = "".join(text for _, text in market.logs)
    assert len(market.logs) > 1 and all(text.endswith("\n") for _, text in market.logs)
    assert told.splitlines() == [f"line {number} is long enough to fill some reports" for number in range(900)]
    assert printed.empty and not folder.printed.exists()


def test_a_flood_leaves_room_for_checkpoints_and_for_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe that prints 4 MB a second for three hours."""
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    spec = make_spec()
    folder, clock, trains = make_folder(spec), [1000.0], [True]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: clock[0])
    market: Any = Market()
    printed = Printed(folder.printed, lambda: None)
    reporter = Reporter(folder, lease_tools(), market, job_key(folder, spec), printed, lambda: trains[0])
    flood, times, claims = b"one line of very many\n" * 12_000, list[float](), list[int]()
    made, post = iter(make_chain(spec, 5, tmp_path / "states")), market.post_report

    def one_more_meanwhile(body: Any) -> None:
        post(body)
        times.append(clock[0])
        printed.write(flood)
        if len(times) % 90 == 1 and (record := next(made, None)):
            folder.add_checkpoint(record)
        assert folder.file.made <= folder.file.reported + 1

    def claimed(body: Any) -> None:
        claims.append(len(times))

    market.post_report, market.post_progress = one_more_meanwhile, claimed
    printed.write(flood)
    for _ in range(180):
        reporter._report_all()
        clock[0] += LOG_SECONDS[0]
        reporter._told_at = float("-inf")  # as if each time a checkpoint had come
    assert claims == [1, 91, 181, 271]  # right after the report in whose time the checkpoint was made
    market.post_report = lambda body: (post(body), times.append(clock[0]))
    trains[0] = False
    printed.write(b"ValueError: the reason\n")
    for _ in range(60):
        reporter._report_all()
    assert printed.empty and market.logs[-1][1].endswith("ValueError: the reason\n")
    assert len(times) > 200
    for first in times:
        assert sum(first <= other < first + 3600 for other in times) < 160  # of the market's 300
    assert any(text.startswith("[... ") and "bytes dropped" in text.splitlines()[0] for _, text in market.logs)


def test_what_is_too_much_at_the_end_is_left_out_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    spec = make_spec()
    folder = make_folder(spec)
    monkeypatch.setattr(reporting.time, "monotonic", lambda: 1000.0)
    market: Any = Market()
    printed = Printed(folder.printed, lambda: None)
    reporter = Reporter(folder, lease_tools(), market, job_key(folder, spec), printed, lambda: False)
    for number in range(reporting.MOST_LOGS - 1):
        printed.write(f"{number}\n".encode())
        reporter._report_all()
    printed.write(b"x" * 100_000 + b"\nthe end\n")
    reporter._report_all()
    assert len(market.logs) == reporting.MOST_LOGS and printed.empty
    text = market.logs[-1][1]
    assert text.startswith("[... 80509 bytes dropped ...]\n") and text.endswith("x\nthe end\n")
    printed.write(b"more\n")
    reporter._report_all()
    assert len(market.logs) == reporting.MOST_LOGS and not printed.empty
