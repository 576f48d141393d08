"""What the market has accepted, as files: from them and the chain its database can be made anew.

Each process appends to a file of its own, one JSON object a line; `market.store.apply` says what a message does to the
database. Messages are numbered under the database's lock: no clock says which came first.

A message is on disk before the transaction that it belongs to commits, so that the database never knows more. It may
know less, after a crash between the two: then the message's sender was never told that it was taken, and sends it
again. The next message gets the same number then and names the one before both, which tells what was taken from what
was not.
"""

import os
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.errors import UserError
from contracts.strict_json import write_json

FOLDER = "messages"  # beside the blobs

Kind = Literal[
    "rules", "ask", "bid", "progress", "approval", "rejection", "report", "audit", "auditor", "key", "grant",
    "upload", "collected", "epoch", "begun", "announced", "cleared", "abandoned", "opened",
]  # fmt: skip


class Message(BaseModel):
    """Something that the market was told, or decided itself, and that the chain does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    number: int | None = Field(default=None, ge=1, description="counts what was accepted; older journals have none")
    id: str = Field(default="", description="made up")
    after: str = Field(default="", description="id of the message that was accepted before this one")
    received: datetime  # with its zone
    received_block: int = Field(description="the newest that was followed then")
    body: dict[str, Any] = Field(description="as it was posted; of epochs, what was matched")
    facts: dict[str, Any] = Field(
        default_factory=dict, description="what the market knew then and the body doesn't say"
    )


@dataclass(frozen=True)
class BadMessage:
    """A message that can't be read: of a journal from before the market refused such, or that was damaged."""

    where: str  # file and line, or the message's number, kind and id
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class Journal:
    """A folder of messages. Threads and processes may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._file: int | None = None  # a descriptor

    def append(self, message: Message) -> None:
        """The message is on disk when this returns. Raises OSError, and ValueError for what JSON can't hold."""
        line = write_json(message.model_dump(mode="json"), compact=True) + "\n"
        with self._lock:
            file, self._file = self._new_file() if self._file is None else self._file, None
            try:
                data = line.encode()
                while data:
                    data = data[os.write(file, data) :]
                os.fsync(file)
            except BaseException:
                os.close(file)  # it may end in half a line: what comes next goes into a new one
                raise
            self._file = file

    def read(self, newest: str = "", bad: list[BadMessage] | None = None) -> list[Message]:
        """All messages that were accepted, in that order. `newest`: the id of the last one, if that is known.

        Lines that are none are left out and added to `bad`; without it, raises UserError for the first one.
        """
        found: list[Message] = []
        for path in sorted(self.folder.glob("*.jsonl")):
            # What follows the last line's end was being written when the process died.
            for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
                try:
                    found.append(_parse(line, f"line {number} of {path}"))
                except UserError as error:
                    if bad is None:
                        raise
                    bad.append(BadMessage(f"line {number} of {path}", error.message.rpartition(" of the market: ")[2]))
        return accepted(found, newest)

    def reached(self) -> int:
        """The highest number of a message; 0 if none has one. Raises UserError if a file's end is damaged."""
        last_lines = ((path, _last_line(path)) for path in self.folder.glob("*.jsonl"))
        messages = (_parse(line, f"the last line of {path}") for path, line in last_lines if line)
        return max((message.number or 0 for message in messages), default=0)

    def _new_file(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / f"{time.time_ns()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the file's name survives a power cut
        finally:
            os.close(folder)
        return file


def accepted(messages: list[Message], newest: str = "") -> list[Message]:
    """In the order of their acceptance, without those whose transaction did not commit. Pure.

    Of several with the same number one was accepted: that which a later message names, or `newest`. While there is
    neither, it may be any of them, and all stay.
    """
    named = {message.after for message in messages} | {newest}
    decided = {message.number for message in messages if message.number and message.id in named}
    taken = [message for message in messages if message.id in named or message.number not in decided]
    # The clock orders those of former versions only, which come first.
    return sorted(taken, key=lambda message: (message.number or 0, message.received))


def _parse(line: bytes, where: str) -> Message:
    try:
        return Message.model_validate_json(line)
    except ValidationError as error:
        raise UserError(
            f"{where} is no message of the market: {error.errors()[0]['msg']}",
            "restore the file from a backup; without the line, what it says is lost",
        ) from error


def _last_line(path: Path) -> bytes:
    """The last one that was written to its end; empty if there is none."""
    block, size = 1 << 16, path.stat().st_size
    with path.open("rb") as file:
        while True:
            start = max(0, size - block)
            file.seek(start)
            lines = file.read(size - start).split(b"\n")[:-1]
            if start == 0 or len(lines) > 1:  # the first of several may have begun before `start`
                return lines[-1] if lines else b""
            block *= 4
