"""How a provider says that steps take more than was signed for them: in the text of its Report of kind `units`."""

import re
from dataclasses import dataclass

_TIMES = re.compile(r"^its steps take (\d{1,9}(?:\.\d)?) times the work that was signed \((\d{1,9}(?:\.\d+)?) times ")


@dataclass(frozen=True)
class Overrun:
    """What steps took on a machine, beside what the signed units allow it."""

    times: float  # what was signed
    allowed: float  # times that, by the provider's settings

    def sentence(self) -> str:
        return f"its steps take {self.times:.1f} times the work that was signed ({self.allowed:g} times is allowed)"


def read_overrun(text: str) -> Overrun | None:
    """What a Report's text begins with; None if it is sealed, or says something else."""
    found = _TIMES.match(text)
    return None if found is None else Overrun(float(found[1]), float(found[2]))
