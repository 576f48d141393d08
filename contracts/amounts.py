"""Amounts as people write them, exactly: "12.5" tokens <-> integers of the smallest unit. No floats."""

import re

from contracts.errors import UserError

MAX_AMOUNT = (1 << 96) - 1  # what the escrow can count
_DECIMAL = re.compile(r"(\d+)(?:\.(\d+))?")


def parse_amount(text: str, decimals: int) -> int:
    """Whole tokens as a decimal -> smallest units. UserError if it isn't one, or has too many digits."""
    match = _DECIMAL.fullmatch(text) if text.isascii() else None
    if match is None:
        raise UserError(f"'{text}' is not an amount", "write whole tokens as a decimal, such as 12.5")
    fraction = (match[2] or "").rstrip("0")
    if len(fraction) > decimals:
        raise UserError(
            f"'{text}' has {len(fraction)} digits after the point, the token has {decimals}",
            f"the smallest amount is {format_amount(1, decimals)}",
        )
    if len(match[1]) > 40 or (amount := int(match[1] + fraction.ljust(decimals, "0"))) > MAX_AMOUNT:
        raise UserError(f"'{text}' is more than the escrow can count", f"at most {format_amount(MAX_AMOUNT, decimals)}")
    return amount


def parse_positive(text: str, decimals: int) -> int:
    """`parse_amount` where nothing at all would make no sense."""
    amount = parse_amount(text, decimals)
    if amount == 0:
        raise UserError(f"'{text}' is no amount: it must be more than 0", "write whole tokens, such as 12.5")
    return amount


def format_amount(amount: int, decimals: int) -> str:
    """Smallest units -> whole tokens as a decimal, without trailing zeros."""
    whole, fraction = divmod(amount, 10**decimals)
    digits = f"{fraction:0{decimals}}".rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)
