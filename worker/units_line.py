"""Writes `units:` into a job.yaml, leaving every other line as its author wrote it."""

import re

_UNITS = re.compile(r"^units:.*$", re.MULTILINE)
_AFTER = re.compile(r"^checkpoint_every:.*$", re.MULTILINE)


def set_units(text: str, units: int) -> str:
    """`text` with its `units:` line replaced, or with one added after `checkpoint_every:`."""
    line = f"units: {units}"
    if _UNITS.search(text):
        return _UNITS.sub(line, text, count=1)
    if after := _AFTER.search(text):
        return f"{text[: after.end()]}\n{line}{text[after.end() :]}"
    return f"{text.rstrip()}\n{line}\n"
