"""What happens to a lease under audit, and what then is due: the words of `decision`. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.audits.cases import Replayed
from contracts.audits.verification import Verification


@dataclass(frozen=True)
class AuditTerms:
    lease: str
    provider: str
    start: int  # checkpoints before the lease's first
    end: int
    start_tip: str  # of checkpoint `start`
    secret: bytes
    verification: Verification
    parties: frozenset[str] = frozenset()  # client, approver: they never replay
    has_own: bool = False  # the approver has a machine of the class

    def __post_init__(self) -> None:
        if self.verification.level == "unchecked":
            raise ValueError("the lease's rules are 'unchecked': nothing is drawn, and approvals wait for nothing")


# ------------------------------------------------------------------ what happens


@dataclass(frozen=True)
class ClaimTaken:
    n: int
    tip: str
    block: int  # the newest that was known when it was received


@dataclass(frozen=True)
class BlockFinal:
    """A block that nothing takes back any more."""

    number: int
    hash: str


@dataclass(frozen=True)
class NoMoreClaims:
    """No further Claim: the provider asked for the last Approval, or the lease is over on chain."""


@dataclass(frozen=True)
class Asked:
    n: int
    auditor: str


@dataclass(frozen=True)
class ReplayEnded:
    n: int
    auditor: str
    answer: Replayed


@dataclass(frozen=True)
class TimeUp:
    """There is no time for another replay of n before its window ends."""

    n: int


@dataclass(frozen=True)
class ApprovalSigned:
    n: int
    last: bool


@dataclass(frozen=True)
class ChallengeSent:
    n: int


@dataclass(frozen=True)
class Told:
    """A word for the public, or for the operator, is out."""

    action: "Action"


@dataclass(frozen=True)
class Upheld:
    """The arbiter has found true what was claimed of n: it was challenged wrongly."""

    n: int


@dataclass(frozen=True)
class OnChain:
    """The chain has a claim that is pending: its tips by checkpoint."""

    tips: Mapping[int, str]


Event = (
    ClaimTaken | BlockFinal | NoMoreClaims | Asked | ReplayEnded | TimeUp | ApprovalSigned | ChallengeSent | Told
    | Upheld | OnChain
)  # fmt: skip


# ------------------------------------------------------------------ what is due


@dataclass(frozen=True)
class WantBlock:
    """Its hash decides a draw."""

    number: int


@dataclass(frozen=True)
class AskReplay:
    """By the approver's own machine, or by one that `auditors.draw_auditor` draws."""

    n: int
    turn: int
    own: bool
    excluded: frozenset[str]


@dataclass(frozen=True)
class Approve:
    n: int
    tip: str
    last: bool


@dataclass(frozen=True)
class Refuse:
    """A second Claim of a checkpoint, or one after the end: kept as evidence."""

    n: int
    tip: str


@dataclass(frozen=True)
class Reject:
    n: int
    tip: str


@dataclass(frozen=True)
class Challenge:
    """By the provider's signed Claim, at once; `root` is what replays agree on."""

    n: int
    tip: str
    root: str


@dataclass(frozen=True)
class Accuse:
    """An auditor's word was not the truth: challenge its own Claim."""

    n: int
    auditor: str


@dataclass(frozen=True)
class TellUnaudited:
    n: int


@dataclass(frozen=True)
class TellUnreproducible:
    """Honest runs differ from each other. `ends`: whether the job does, by its rules."""

    n: int
    ends: bool


@dataclass(frozen=True)
class Alarm:
    """For the operator: something that can't go on by itself."""

    n: int
    text: str


Action = (
    WantBlock | AskReplay | Approve | Refuse | Reject | Challenge | Accuse | TellUnaudited | TellUnreproducible | Alarm
)
