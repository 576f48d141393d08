"""What a kind of liar is, and all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from contracts.audits.levels import CLOSED
from contracts.audits.verification import Verification

if TYPE_CHECKING:
    from tests.liars.trial import Trial

HONEST, CLIENT, APPROVER = "honest", "client", "approver"

SURE = CLOSED.model_copy(update={"share_ppm": 1_000_000, "approve_every": 2})  # every checkpoint is replayed


@dataclass(frozen=True)
class StageNeeds:
    """Kinds that need the same share a stage."""

    verification: Verification = SURE
    own_replays: bool = True  # by the approver
    lying_approver: str | None = None  # of which kind


class Liar:
    """One kind. `lie` replaces a part of the program in whose process it is called, and only there."""

    name: ClassVar[str]
    summary: ClassVar[str]
    patched: ClassVar[str]  # which part
    honest_until: ClassVar[int] = 0  # checkpoint of the job
    checkpoints: ClassVar[int] = 2
    steps: ClassVar[int] = 20  # of a checkpoint
    needs: ClassVar[StageNeeds] = StageNeeds()
    stops_when_ruled: ClassVar[bool] = False  # its client cancels then: it would take too long
    allowed: ClassVar[dict[str, int]] = {}  # what docs say that an honest party may lose, in prices

    def lie(self) -> None:
        """In the liar's process, before its program begins."""

    hides: ClassVar[bool] = False  # its lie is on chain only
    leaves: ClassVar[bool] = False  # its process ends by itself

    def is_lie(self, n: int) -> bool:
        """Whether what it claims as checkpoint n is one."""
        return n > self.honest_until

    def play(self, trial: "Trial") -> None:
        """From its coming to a stage to the end of all leases."""
        trial.offer(HONEST, price=1900)
        trial.offer(trial.liar, price=1800, liar=self)
        trial.submit(self.checkpoints)
        trial.watch()


KINDS: dict[str, Callable[[], Liar]] = {}


def kind(cls: type[Liar]) -> type[Liar]:
    KINDS[cls.name] = cls
    return cls
