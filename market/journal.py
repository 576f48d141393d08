"""What the market has accepted, as files: from them and the chain its database can be made anew.

Each process appends to a file of its own, one JSON object a line; `market.messages` says what a message does to the
database. A message is on disk before the transaction that it belongs to commits, so that the database never knows
more. It may know less: then the message's sender was never told that it was taken, and sends it again.
"""

import json
import os
import secrets
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.errors import UserError

FOLDER = "messages"  # beside the blobs

Kind = Literal[
    "rules", "ask", "bid", "progress", "approval", "rejection", "report", "auditor", "key", "grant", "upload",
    "collected", "epoch", "opened",
]  # fmt: skip


class Message(BaseModel):
    """Something that the market was told, or decided itself, and that the chain does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    received: datetime  # with its zone
    received_block: int = Field(description="the newest that was followed then")
    body: dict[str, Any] = Field(description="as it was posted; of epochs, what was matched")
    facts: dict[str, Any] = Field(
        default_factory=dict, description="what the market knew then and the body doesn't say"
    )


class Journal:
    """A folder of messages. Threads and processes may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._file: int | None = None  # a descriptor

    def append(self, message: Message) -> None:
        """The message is on disk when this returns. Raises OSError."""
        line = json.dumps(message.model_dump(mode="json"), sort_keys=True, separators=(",", ":")) + "\n"
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

    def read(self) -> list[Message]:
        """All messages, in the order of their coming. Raises UserError if a file is damaged."""
        found: list[Message] = []
        for path in sorted(self.folder.glob("*.jsonl")):
            # What follows the last line's end was being written when the process died.
            for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
                try:
                    found.append(Message.model_validate_json(line))
                except ValidationError as error:
                    raise UserError(
                        f"line {number} of {path} is no message of the market: {error.errors()[0]['msg']}",
                        "restore the file from a backup; without the line, what it says is lost",
                    ) from error
        return sorted(found, key=lambda message: message.received)

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
