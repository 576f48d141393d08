"""What an approver says in public of a lease's audit: notes that it signs, with what they are of. docs/audits.md."""

from typing import Annotated, Literal

from eth_account.signers.local import LocalAccount
from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.audits.cases import Outcome
from contracts.audits.verification import MAX_APPROVE_EVERY
from contracts.commitment import canonical_hash
from contracts.orders import AuditNote, Domain
from contracts.types import Address, Bytes20, Bytes32, Signature, Time, Uint16, Uint40, Uint64, to_hex


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def hash(self) -> str:
        """What `content` of the note must be."""
        return to_hex(canonical_hash(self.model_dump(mode="json")))


class CommitmentContent(_Content):
    """Before a lease's first Claim: the keccak of the secret of its draws."""

    kind: Literal["commitment"] = "commitment"
    commitment: Bytes32


class DrawnClaim(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    n: Uint16
    tip: Bytes20


class BatchContent(_Content):
    """Claims that were drawn from together, and which of them were drawn."""

    kind: Literal["batch"] = "batch"
    claims: list[DrawnClaim] = Field(min_length=1, max_length=MAX_APPROVE_EVERY)
    block: Uint64 = Field(description="the one after the newest that was known when the last of the Claims came in")
    block_hash: Bytes32
    drawn: list[Uint16] = Field(max_length=MAX_APPROVE_EVERY, description="ascending; empty: none of them")

    @model_validator(mode="after")
    def _fits_together(self) -> "BatchContent":
        claimed = [one.n for one in self.claims]
        if claimed != list(range(claimed[0], claimed[0] + len(claimed))):
            raise ValueError(f"the Claims are of the checkpoints {claimed}; a batch has those that follow each other")
        if self.drawn != sorted(set(self.drawn) & set(claimed)):
            raise ValueError(f"drawn is {self.drawn}; give some of {claimed}, in ascending order")
        return self


class ReplayContent(_Content):
    """What a replay of a drawn checkpoint came to."""

    kind: Literal["replay"] = "replay"
    n: Uint16
    auditor: Address | None = Field(description="null: the approver's own machine")
    job: Bytes32 | None = Field(description="id of the replay's Bid; null: there was none")
    outcome: Outcome
    root: str = Field(
        pattern="^(0x[0-9a-f]{64})?$", description="of the checkpoint as it was replayed; empty unless it differs"
    )

    @model_validator(mode="after")
    def _root_if_it_differs(self) -> "ReplayContent":
        if (self.outcome == "differs") != bool(self.root):
            raise ValueError(f"outcome is {self.outcome!r} with the root {self.root!r}; a root is told if it differs")
        return self


class RulingContent(_Content):
    """What the approver has come to about a drawn checkpoint."""

    kind: Literal["ruling"] = "ruling"
    n: Uint16
    ruling: Literal["good", "false", "unaudited", "held", "unreproducible"]


class SecretContent(_Content):
    """When the lease is over: what `commitment` was the keccak of, so that anybody can draw again."""

    kind: Literal["secret"] = "secret"
    secret: Bytes32


Content = Annotated[
    CommitmentContent | BatchContent | ReplayContent | RulingContent | SecretContent, Field(discriminator="kind")
]


class AuditNoteIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    note: AuditNote
    signature: Signature
    content: Content

    @model_validator(mode="after")
    def _is_of_its_content(self) -> "AuditNoteIn":
        if problem := _misfit(self.note, self.content):
            raise ValueError(problem)
        return self


class AuditNoteOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: int = Field(description="ascending")
    lease: Bytes32
    job: Bytes32 = Field(description="id of the job, the Bid's digest")
    note: AuditNote
    signature: Signature
    content: Content
    received: Time


def signed_note(lease: str, content: Content, time: Uint40, domain: Domain, key: LocalAccount) -> AuditNoteIn:
    """`time` in UTC seconds."""
    note = AuditNote(lease=lease, kind=content.kind, content=content.hash(), time=time)
    return AuditNoteIn(note=note, signature=note.sign(domain, key), content=content)


def check_note(out: AuditNoteOut, domain: Domain, approver: str) -> str | None:
    """Why this is no note of the approver's key on that lease, as a sentence; None if it is one."""
    if out.note.lease != out.lease:
        return f"note {out.id} is shown for lease {out.lease}, and is of {out.note.lease}"
    if problem := _misfit(out.note, out.content):
        return f"note {out.id}: {problem}"
    if out.note.signer(domain, out.signature) != approver:
        return f"note {out.id} of lease {out.lease} is not signed by the approver {approver}"
    return None


def _misfit(note: AuditNote, content: Content) -> str | None:
    if note.kind != content.kind:
        return f"the note is of the kind {note.kind!r}, and its content of {content.kind!r}"
    if note.content != content.hash():
        return f"the note signs a content with the hash {note.content}, but the one given has {content.hash()}"
    return None
