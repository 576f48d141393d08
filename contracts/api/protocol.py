"""Which version of docs/protocol.md is spoken here, and which by a market: of two, neither understands the other."""

from collections.abc import Callable

import httpx2

from contracts.errors import UserError
from contracts.strict_json import read_json

PROTOCOL = 2
OLDEST = 1  # of markets that do not tell
HEADER = "gpumarket-protocol"  # of each answer
INFO = "/v1/info"


class OtherProtocol(UserError):
    """The market or escrow at the other end is of another version than this program."""


def check_protocol(spoken: int, who: str) -> None:
    """Raises OtherProtocol unless `who`, such as "the market at ...", speaks the version that this program does."""
    if spoken == PROTOCOL:
        return
    raise OtherProtocol(
        f"{who} speaks version {spoken} of the protocol, this program version {PROTOCOL}",
        "Install the newest gpumarket."
        if spoken > PROTOCOL
        else f"Use a market of version {PROTOCOL}; for jobs that live there, a gpumarket of version {spoken}.",
    )


class Spoken:
    """What a market has told of its protocol so far."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._told = False

    def check(self, answer: httpx2.Response, ask: Callable[[], httpx2.Response]) -> None:
        """Looks at an answer, and if none has told anything, at what `ask` gets from INFO. Raises OtherProtocol.

        What comes from no market tells nothing, and stays to be told by others.
        """
        told = _in_header(answer)
        if told is None and answer.request.url.path.endswith(INFO):
            told = _in_body(answer)
        elif told is None and not self._told:
            info = ask()
            told = _in_header(info) or _in_body(info)
        if told is not None:
            check_protocol(told, self._who)
            self._told = True


def _in_header(answer: httpx2.Response) -> int | None:
    text = answer.headers.get(HEADER, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _in_body(answer: httpx2.Response) -> int | None:
    try:
        body = read_json(answer.content)
    except ValueError:
        return None
    told = body.get("protocol", OLDEST) if isinstance(body, dict) and "escrow" in body else None
    return told if type(told) is int else None
