"""What was rejected for its bytes or its form: should it be claimed on chain all the same, it is challenged there."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path

import structlog

from contracts.api.bodies import ListedLease
from contracts.api.problems import Problem
from contracts.strict_json import read_json, write_json
from market.approver.auditing.alarms import Alarms
from market.approver.auditing.disputes import BondShort, Disputes, Questioned
from market.approver.signing import Signing

log = structlog.get_logger()


class Rejected:
    """One small file per lease, gone when the lease is over."""

    def __init__(self, folder: Path, signing: Signing, disputes: Disputes, alarms: Alarms) -> None:
        self._folder, self._signing, self._disputes, self._alarms = folder, signing, disputes, alarms

    def remember(self, lease: str, n: int, tip: str, ground: int | None) -> None:
        """Before the Rejection is signed. `ground`: None: an arbiter would find it true, so that it is left alone."""
        known = self._read(lease)
        if tip in known:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write(lease, known | {tip: (n, ground)})

    def forget(self, lease: str, tip: str) -> None:
        """What was shown as it should be after all: a tip says nothing of the bytes that came with it first."""
        known = self._read(lease)
        if known.pop(tip, None) is not None:
            self._write(lease, known)

    def tips(self, lease: str) -> Collection[str]:
        """What was rejected of a lease."""
        return self._read(lease).keys()

    def checkpoints(self, lease: str) -> set[int]:
        """Of which something was rejected."""
        return {n for n, _ in self._read(lease).values()}

    def question(self, out: ListedLease) -> None:
        """Challenges what of it is pending in a live lease. Raises what the escrow refuses with."""
        state, known = out.state, self._read(out.id)
        if not known or state.claimed == state.accepted or state.phase not in ("active", "closing"):
            return
        lease = self._signing.lease(out.id)
        for n, tip in sorted(self._disputes.look(lease).pending.items()):
            if tip in known and (ground := known[tip][1]) is not None:
                log.warning("approver.rejected_claimed", lease=out.id, n=n, tip=tip)
                try:
                    self._disputes.challenge(lease, Questioned(n, tip, "", {}, ground), self._signing.approval(lease))
                except BondShort as error:
                    self._alarms.give(out.id, f"{error.message}; {error.hint}")
                return

    def forget_others(self, live: set[str], apart: Callable[[str], AbstractContextManager[None]]) -> None:
        """Those of leases that are over; what of it was paid is told. `apart`: one lease's trouble is not another's."""
        for path in self._folder.glob("*.json"):
            if path.stem not in live:
                with apart(path.stem):
                    try:
                        lease = self._signing.lease(path.stem)
                    except Problem as problem:
                        if problem.status == 404:  # it went in a reorganisation
                            path.unlink()
                        raise
                    for tip, (n, ground) in self._read(path.stem).items():
                        if ground is not None:  # else it was left alone
                            self._alarms.give_if_paid(lease, n, tip)
                    path.unlink()

    def _write(self, lease: str, known: dict[str, tuple[int, int | None]]) -> None:
        partial = self._path(lease).with_suffix(".part")
        partial.write_text(write_json(known), encoding="utf-8")
        partial.replace(self._path(lease))

    def _read(self, lease: str) -> dict[str, tuple[int, int | None]]:
        try:
            found: dict[str, tuple[int, int | None]] = read_json(self._path(lease).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def _path(self, lease: str) -> Path:
        return self._folder / f"{lease}.json"
