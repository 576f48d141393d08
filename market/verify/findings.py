"""What a check has found."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lie:
    """Something that no honest market would publish or do."""

    text: str


@dataclass(frozen=True)
class Note:
    """Something that can't be checked, or only the market knows."""

    text: str


Findings = Iterator[Lie | Note]


@dataclass
class Checked:
    """One kind of check: of how many things, and what was found."""

    name: str
    count: int
    lies: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
