"""What has happened to each lease under audit, on disk: a restart forgets no draw, no replay and no rejection."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from contracts.api.bodies import BidIn, CheckpointOut
from contracts.audits import events
from contracts.audits.events import Action, Event
from contracts.errors import UserError
from contracts.strict_json import read_json, write_json


@dataclass(frozen=True)
class ClaimKept:
    """A Claim as it was taken: evidence, should the market lose it. `block`: the newest that was known then."""

    reported: CheckpointOut
    block: int


@dataclass(frozen=True)
class ReplayOrdered:
    """The Bid of a replay. It is written down before it is posted, so that it is never posted twice."""

    n: int
    auditor: str
    body: BidIn
    until: float  # UTC seconds


@dataclass(frozen=True)
class ReplayKept:
    """What an auditor handed in."""

    n: int
    auditor: str
    reported: CheckpointOut


Line = Event | ClaimKept | ReplayOrdered | ReplayKept
_ACTIONS: dict[str, Any] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (
        events.Refuse, events.Reject, events.Accuse, events.TellUnaudited, events.TellUnreproducible, events.Alarm
    )
}  # fmt: skip
_LINES: dict[str, Any] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (
        ClaimKept, ReplayOrdered, ReplayKept, events.BlockFinal, events.NoMoreClaims, events.Asked, events.ReplayEnded,
        events.TimeUp, events.ApprovalSigned, events.ChallengeSent, events.Upheld,
    )
}  # fmt: skip


class History:
    """Of one lease: JSON lines, each on disk before anything is done upon it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_there(self) -> bool:
        return self._path.exists()

    def append(self, line: Line) -> None:
        data = (write_json(_written(line), compact=True) + "\n").encode()
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        is_new = not self._path.exists()
        with open(self._path, "ab", opener=_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync(self._path.parent)

    def read(self) -> Iterator[Line]:
        """In their order. What follows the last line's end was being written when the process died. Raises UserError
        for a line that is none.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        whole, _, half = data.rpartition(b"\n")
        if half:
            os.truncate(self._path, len(data) - len(half))
        for number, line in enumerate(whole.split(b"\n") if whole else (), start=1):
            try:
                yield _read(read_json(line))
            except (ValueError, KeyError) as error:
                raise UserError(
                    f"line {number} of {self._path} is no event of an audit: {error}",
                    "restore the file from a backup; without it, what was drawn there can't be gone on with",
                ) from error


def _written(line: Line) -> dict[str, Any]:
    if isinstance(line, events.Told):
        action: Action = line.action
        return {"kind": "Told", "action": type(action).__name__, **asdict(action)}
    name = type(line).__name__
    value: dict[str, Any] = _LINES[name].dump_python(line, mode="json", by_alias=True)
    return {"kind": name, **value}


def _read(value: dict[str, Any]) -> Line:
    kind = value.pop("kind")
    if kind == "Told":
        action: Action = _ACTIONS[value.pop("action")].validate_python(value)
        return events.Told(action)
    line: Line = _LINES[kind].validate_python(value)
    return line


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
