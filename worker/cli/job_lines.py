"""Lines that commands write into a job.yaml. All else stays as its owner has written it."""

import re

from contracts.job.measured import MeasuredOn
from contracts.strict_json import write_json

# A field at the top, with the indented lines of its value; comments between these go with them.
_FIELD = r"^{}:.*\n?(?:(?:[ \t]+#.*\n)*[ \t]+[^\s#].*\n?)*"


def set_units(text: str, units: int, where: MeasuredOn) -> str:
    """`text` with these units, and what they were measured on."""
    # JSON writes text and numbers as YAML reads them.
    place = ", ".join(f"{name}: {write_json(value)}" for name, value in where.model_dump().items())
    text = _set_field(text, "units", str(units), after="checkpoint_every")
    return _set_field(text, "measured_on", f"{{{place}}}", after="units")


def set_units_of(text: str, work: str) -> str:
    """`text`, which has units, with the hash of what they were counted of."""
    return _set_field(text, "units_of", write_json(work), after="units")


def _set_field(text: str, name: str, value: str, *, after: str) -> str:
    """Replaces the field; or adds it after another one, or at the end."""
    line = f"{name}: {value}\n"
    own, before = (re.search(_FIELD.format(field), text, re.MULTILINE) for field in (name, after))
    if own:
        return text[: own.start()] + line + text[own.end() :]
    head, tail = (text[: before.end()], text[before.end() :]) if before else (text.rstrip(), "")
    return head + ("" if head.endswith("\n") else "\n") + line + tail
