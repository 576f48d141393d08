"""Scalar types shared by orders and API bodies: fixed-width integers, hashes, addresses as they stand in JSON."""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from eth_utils.address import is_address, to_checksum_address
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

SECONDS_PER_HOUR = 3600
MB = 1 << 20  # bytes, wherever memory or disk is told in MB
SIGNATURE_BYTES = 1024  # at most
UNIT_FLOPS = 1_000_000  # one work unit is 1 MFLOP of the training step


def _uint(bits: int) -> Any:
    """An unsigned integer of at most `bits` bits; from 64 bits up a decimal string in JSON (doubles end at 2^53)."""

    digits = len(str((1 << bits) - 1))

    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"expected a whole number, got {value!r}")
        if isinstance(value, str):
            if not (value.isascii() and value.isdigit()):
                raise ValueError(f"expected a whole number in decimal digits, got {value!r}")
            if len(value.lstrip("0")) > digits:
                raise ValueError(f"a number of {len(value)} digits does not fit in uint{bits}")
            value = int(value.lstrip("0") or "0")
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{value} does not fit in uint{bits}")
        return value

    if bits < 64:
        schema: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": (1 << bits) - 1}
        return Annotated[int, BeforeValidator(parse), WithJsonSchema(schema)]
    schema = {"type": "string", "pattern": "^[0-9]+$", "maxLength": digits, "description": f"uint{bits}, decimal"}
    return Annotated[
        int,
        BeforeValidator(parse),
        PlainSerializer(str, return_type=str, when_used="json"),
        WithJsonSchema(schema),
    ]


def _hex_bytes(size: int) -> Any:
    """0x-hex of exactly `size` bytes, lower case."""

    def parse(value: Any) -> str:
        if isinstance(value, bytes | bytearray):
            value = "0x" + bytes(value).hex()
        text = str(value).lower()
        digits = text[2:]
        if not (text.startswith("0x") and len(digits) == 2 * size and all(c in "0123456789abcdef" for c in digits)):
            raise ValueError(f"expected 0x and {2 * size} hex digits, got {str(value)[:80]!r}")
        return text

    schema = {"type": "string", "pattern": f"^0x[0-9a-f]{{{2 * size}}}$"}
    return Annotated[str, BeforeValidator(parse), WithJsonSchema(schema)]


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("a text can't have the character NUL (U+0000) in it")
    return value


Text = Annotated[str, AfterValidator(_no_nul)]  # of people; not every database can keep a NUL


def _address(value: str) -> str:
    if not is_address(value):
        raise ValueError(f"expected an address (0x and 40 hex digits, checksum right if mixed case), got {value!r}")
    return to_checksum_address(value)


def _signature(value: str) -> str:
    text = value.lower()
    if not text.startswith("0x") or len(text) > 2 + 2 * SIGNATURE_BYTES or len(text) % 2:
        raise ValueError(f"expected a signature as 0x-hex, at most {SIGNATURE_BYTES} bytes")
    bytes.fromhex(text[2:])
    return text


# A JSON number: not "inf" or "1.5" as text, and neither NaN nor infinite, which JSON could not hold again.
# Its bounds are for the schema only: constraints here would take the place of a field's own.
_MOST = sys.float_info.max
Finite = Annotated[
    float,
    Field(strict=True, allow_inf_nan=False),
    WithJsonSchema({"type": "number", "minimum": -_MOST, "maximum": _MOST}),
]


# As they stand in JSON and YAML. By themselves models read `true` as 1, "1_000" as a number and "on" as true.
WholeNumber = Annotated[int, Field(strict=True)]
Level = Literal["unchecked", "open", "closed"]  # of what rules promise about looking after providers
MAX_APPROVE_EVERY = 100  # checkpoints of work that a provider may have to wait for
TrueOrFalse = Annotated[bool, Field(strict=True)]


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[
    datetime,
    PlainSerializer(_rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Uint16 = _uint(16)
Uint32 = _uint(32)
Uint40 = _uint(40)
Uint64 = _uint(64)
Uint96 = _uint(96)
Uint256 = _uint(256)
Bytes20 = _hex_bytes(20)
Bytes32 = _hex_bytes(32)
Bytes80 = _hex_bytes(80)
Address = Annotated[str, AfterValidator(_address), WithJsonSchema({"type": "string", "pattern": "^0x[0-9a-fA-F]{40}$"})]
Signature = Annotated[
    str,
    AfterValidator(_signature),
    WithJsonSchema({"type": "string", "pattern": "^0x[0-9a-f]*$", "maxLength": 2 + 2 * SIGNATURE_BYTES}),
]

ZERO_ADDRESS = "0x" + "0" * 40
ZERO_HASH = "0x" + "0" * 64
ZERO_TIP = "0x" + "0" * 40


def from_hex(text: str) -> bytes:
    return bytes.fromhex(text[2:] if text.startswith("0x") else text)


def to_hex(data: bytes) -> str:
    return "0x" + bytes(data).hex()
