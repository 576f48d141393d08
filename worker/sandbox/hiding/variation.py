"""What a sandbox tells a program may be varied from run to run: one that then gives something else is not reproducible.

Memory is laid out anew in each process, by the kernel. docs/environments.md says what can't be varied.
"""

from dataclasses import dataclass

BOOT_ID = "00000000-0000-4000-8000-{:012}\n"


@dataclass(frozen=True)
class Variation:
    """The default is what everybody is told."""

    host_name: str = "sandbox"
    boot: int = 0  # in the boot's id
    up_seconds: int = 0  # since the boot
    used_mb: int = 0  # of the memory that it may use
    backwards: bool = False  # the job's files are laid in the other order


PLAIN = Variation()


def varied(run: int) -> Variation:
    """Of an arbiter's runs, from 0: each other than everybody's, and than the one before."""
    number = run + 1
    return Variation(f"machine-{number}", number, 3_600 * number, 256 * number, number % 2 == 1)
