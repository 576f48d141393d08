"""The approver's rounds: what one lease does to it is not another's trouble."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests
from nacl.public import PrivateKey
from structlog.testing import capture_logs

from contracts.errors import UserError
from contracts.orders import new_account
from market.approver.memory import Memory
from market.approver.service import Approver

BAD, GOOD = "0x" + "11" * 32, "0x" + "22" * 32


class Market:
    """Two leases: everything about the first one goes wrong."""

    def pending_progress(self, _: str) -> list[Any]:
        return [SimpleNamespace(lease=lease, job=lease) for lease in (BAD, GOOD)]

    def release_requests(self, _: str) -> list[Any]:
        return [SimpleNamespace(report=SimpleNamespace(lease=lease)) for lease in (BAD, GOOD)]

    def leases(self, **_: object) -> list[Any]:
        state = SimpleNamespace(phase="closing")
        return [SimpleNamespace(id=lease, state=state, approval=SimpleNamespace(lease=lease)) for lease in (BAD, GOOD)]


@pytest.fixture
def approver(tmp_path: Path) -> Approver:
    parts = cast(Any, (Market(), None, new_account(), PrivateKey.generate(), Memory(tmp_path), object()))
    return Approver(*parts)


@pytest.mark.parametrize("trouble", [UserError("refused"), ZeroDivisionError("a bug that a stranger found")])
@pytest.mark.parametrize(
    ("part", "one"),
    [
        (Approver.approve_reported, "_judge"),
        (Approver.answer_releases, "_release"),
        (Approver.redeem_for_vanished, "_redeem"),
    ],
)
def test_one_lease_holds_up_no_other(
    approver: Approver,
    monkeypatch: pytest.MonkeyPatch,
    part: Callable[[Approver], None],
    one: str,
    trouble: Exception,
) -> None:
    seen: list[str] = []

    def look(what: Any, *_: object) -> None:
        lease = getattr(what, "lease", None) or getattr(what, "id", None) or what.report.lease
        if lease == BAD:
            raise trouble
        seen.append(lease)

    monkeypatch.setattr(approver, one, look)
    part(approver)
    assert seen == [GOOD]


def test_a_silent_chain_ends_the_round(approver: Approver, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: object) -> None:
        raise requests.ConnectionError("refused")

    monkeypatch.setattr(approver, "_judge", silent)
    with pytest.raises(requests.ConnectionError):
        approver.approve_reported()


def test_what_is_wrong_with_a_lease_is_said_once(approver: Approver, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = {BAD: "no grant", GOOD: "replaced"}

    def refuse(what: Any) -> None:
        raise UserError(problems[what.lease])

    monkeypatch.setattr(approver, "_judge", refuse)
    with capture_logs() as logs:
        for _ in range(3):
            approver.approve_reported()
        problems[BAD] = "another reason"
        approver.approve_reported()
    said = [(line["lease"], line["problem"]) for line in logs if line["event"] == "approver.skipped"]
    assert sorted(said[:2]) == [(BAD, "no grant"), (GOOD, "replaced")] and said[2:] == [(BAD, "another reason")]
