"""EIP-712 orders and the messages that follow them: build, hash, sign, recover. Pure; docs/protocol.md section 2.

JSON names are those of the signed types, so that an order in an API body is the message a wallet signs.
"""

import sys
from typing import Any, ClassVar, Literal

from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_keys.datatypes import Signature as EcdsaSignature
from eth_utils.crypto import keccak
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from contracts.types import (
    ZERO_ADDRESS,
    ZERO_HASH,
    ZERO_TIP,
    Address,
    Bytes20,
    Bytes32,
    Text,
    Uint16,
    Uint32,
    Uint40,
    Uint64,
    Uint96,
    Uint256,
    from_hex,
    to_hex,
)

# eth_account imports py_ecc, and that raises the limit to 100,000: deeper than the stack is. Then 100 kB of "[[[..."
# from a stranger, read as JSON, would end a market or an agent with a segmentation fault.
sys.setrecursionlimit(1000)

NONCE_BITS = 112  # bids a page: what fits in an account's slot
SECP256K1_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class Domain(BaseModel):
    """Which escrow on which chain a signature is for."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="forbid")

    chain_id: Uint256
    verifying_contract: Address

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": "gpumarket",
            "version": "2",
            "chainId": self.chain_id,
            "verifyingContract": self.verifying_contract,
        }


class SignedType(BaseModel):
    """Base of everything that is hashed as an EIP-712 struct."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="forbid")

    TYPE: ClassVar[tuple[tuple[str, str], ...]]

    def message(self) -> dict[str, Any]:
        """Field values as EIP-712 encoders want them: integers, 0x-hex, booleans."""
        return self.model_dump(by_alias=True)

    def typed_data(self, domain: Domain) -> dict[str, Any]:
        """The full typed data (`eth_signTypedData_v4`, `cast wallet sign --data`) as JSON-safe values."""
        name = type(self).__name__
        fields = [{"name": field, "type": kind} for kind, field in self.TYPE]
        eip712_domain = [
            {"name": "name", "type": "string"},
            {"name": "version", "type": "string"},
            {"name": "chainId", "type": "uint256"},
            {"name": "verifyingContract", "type": "address"},
        ]
        return {
            "types": {"EIP712Domain": eip712_domain, name: fields},
            "primaryType": name,
            "domain": domain.as_dict(),
            "message": self.model_dump(mode="json", by_alias=True),
        }

    def signable(self, domain: Domain) -> SignableMessage:
        data = self.typed_data(domain)
        data["message"] = self.message()
        return encode_typed_data(full_message=data)

    def digest(self, domain: Domain) -> str:
        """The EIP-712 digest: what is signed, and an order's id."""
        signable = self.signable(domain)
        return to_hex(keccak(b"\x19" + signable.version + signable.header + signable.body))

    def sign(self, domain: Domain, account: LocalAccount) -> str:
        """A 64-byte EIP-2098 signature as 0x-hex."""
        signed = account.sign_message(self.signable(domain))
        return to_hex(compact_signature(signed.r, signed.s, signed.v - 27))

    def signer(self, domain: Domain, signature: str) -> str | None:
        """The address whose ECDSA signature (65 or 64 bytes) this is; None if it is none of those."""
        return recover(from_hex(self.digest(domain)), from_hex(signature))


class Rules(SignedType):
    """Terms on timing (seconds) and arbitration (token units) that both orders of a lease sign."""

    TYPE = (
        ("address", "arbiter"),
        ("uint96", "arbiterFee"),
        ("uint32", "arbiterTimeout"),
        ("uint32", "checkpointTimeout"),
        ("uint32", "window"),
        ("bytes32", "verification"),
    )
    arbiter: Address
    arbiter_fee: Uint96
    arbiter_timeout: Uint32
    checkpoint_timeout: Uint32
    window: Uint32
    verification: Bytes32

    def struct_hash(self) -> str:
        """hashStruct without a domain: what the orders' `rules` field holds."""
        any_domain = Domain(chain_id=0, verifying_contract=ZERO_ADDRESS)
        return to_hex(self.signable(any_domain).body)


class Bid(SignedType):
    """A client's order for one job's checkpoints."""

    TYPE = (
        ("address", "client"),
        ("address", "matcher"),
        ("address", "approver"),
        ("bytes32", "job"),
        ("bytes32", "rules"),
        ("bytes20", "startTip"),
        ("uint16", "checkpoints"),
        ("uint64", "units"),
        ("uint96", "maxPrice"),
        ("uint64", "fee"),
        ("uint96", "stake"),
        ("uint40", "validUntil"),
        ("uint40", "nonce"),
    )
    client: Address
    matcher: Address
    approver: Address
    job: Bytes32
    rules: Bytes32
    start_tip: Bytes20 = ZERO_TIP
    checkpoints: Uint16
    units: Uint64
    max_price: Uint96
    fee: Uint64
    stake: Uint96
    valid_until: Uint40
    nonce: Uint40

    @property
    def page(self) -> int:
        return self.nonce >> 8

    @property
    def bit(self) -> int:
        return self.nonce & 0xFF

    @property
    def effective_approver(self) -> str:
        return self.client if self.approver == ZERO_ADDRESS else self.approver


class Ask(SignedType):
    """A provider's order: one machine's training work at a price per hour."""

    TYPE = (
        ("address", "provider"),
        ("address", "matcher"),
        ("bytes32", "resources"),
        ("bytes32", "rules"),
        ("uint96", "pricePerHour"),
        ("uint64", "unitsPerHour"),
        ("uint96", "maxStake"),
        ("uint16", "maxActive"),
        ("uint16", "maxCheckpoints"),
        ("uint40", "validFrom"),
        ("uint40", "validUntil"),
        ("uint32", "page"),
    )
    provider: Address
    matcher: Address
    resources: Bytes32
    rules: Bytes32
    price_per_hour: Uint96
    units_per_hour: Uint64
    max_stake: Uint96
    max_active: Uint16
    max_checkpoints: Uint16
    valid_from: Uint40
    valid_until: Uint40
    page: Uint32


def owner_of(order: Bid | Ask) -> str:
    """Address of who signs it."""
    return order.client if isinstance(order, Bid) else order.provider


class Claim(SignedType):
    """A provider's progress: the chain of tips of `lease` reaches `tip` at index `n`."""

    TYPE = (("bytes32", "lease"), ("uint16", "n"), ("bytes20", "tip"))
    lease: Bytes32
    n: Uint16
    tip: Bytes20


class Approval(SignedType):
    """An approver's cumulative acceptance up to `n`; `last` lets the provider close the lease with it."""

    TYPE = (("bytes32", "lease"), ("uint16", "n"), ("bytes20", "tip"), ("bool", "last"))
    lease: Bytes32
    n: Uint16
    tip: Bytes20
    last: bool


# log: what the recipe printed. All others say that the lease stops, and want an Approval(last). failed: the recipe
# can't make its next checkpoint. machine: the provider's machine can't go on. units: its
# steps take far more than the units that were signed. random: its first steps, done twice, differ. release: any other.
ReportKind = Literal["log", "failed", "release", "machine", "units", "random"]
FAILURES: tuple[ReportKind, ...] = ("failed", "random")  # after three at one checkpoint the job is given up
STOPS: tuple[ReportKind, ...] = (*FAILURES, "release", "machine", "units")


class Report(SignedType):
    """A provider's authenticated word to market and approver; never on chain."""

    TYPE = (
        ("bytes32", "lease"),
        ("uint16", "n"),
        ("string", "kind"),
        ("bytes32", "content"),
        ("uint40", "time"),
    )
    lease: Bytes32
    n: Uint16
    kind: ReportKind
    content: Bytes32
    time: Uint40


class Rejection(SignedType):
    """An approver's word that it will not accept checkpoint `n`, and why; never on chain."""

    TYPE = (("bytes32", "lease"), ("uint16", "n"), ("bytes20", "tip"), ("string", "reason"))
    lease: Bytes32
    n: Uint16
    tip: Bytes20
    reason: Text = Field(max_length=500)


# commitment: to the secret of a lease's draws. batch: Claims that were drawn from, and which. replay: what one came to.
# ruling: on a drawn checkpoint. secret: when the lease is over.
AuditKind = Literal["commitment", "batch", "replay", "ruling", "secret"]


class AuditNote(SignedType):
    """An approver's public word on the audit of a lease; never on chain. `content`: keccak of a canonical JSON."""

    TYPE = (("bytes32", "lease"), ("string", "kind"), ("bytes32", "content"), ("uint40", "time"))
    lease: Bytes32
    kind: AuditKind
    content: Bytes32
    time: Uint40


class AccessToken(SignedType):
    """An account's word that a request comes from it: to read a job's blobs and logs, or to write; never on chain."""

    TYPE = (("address", "account"), ("bytes32", "job"), ("string", "scope"), ("uint40", "validUntil"))
    account: Address
    job: Bytes32 = ZERO_HASH  # the Bid's id; 0 to write
    scope: str = Field(pattern="^(read|write)$")
    valid_until: Uint40


class AuditorGrant(SignedType):
    """A client lets somebody read its job until then; never on chain."""

    TYPE = (("bytes32", "job"), ("address", "auditor"), ("uint40", "validUntil"))
    job: Bytes32
    auditor: Address
    valid_until: Uint40


class EncryptionKey(SignedType):
    """An account's X25519 key, to which keys of sealed jobs may be sealed; the newest holds. Never on chain."""

    TYPE = (("address", "account"), ("bytes32", "key"), ("uint40", "time"))
    account: Address
    key: Bytes32
    time: Uint40


class KeyGrant(SignedType):
    """A client or approver gives a sealed job's key to `reader`; `content` is the SHA-256 of the 80 sealed bytes.

    Signed, or else a market could hand a worker a key of its own, and read what the worker seals with it.
    """

    TYPE = (("bytes32", "job"), ("address", "reader"), ("bytes32", "readerKey"), ("bytes32", "content"))
    job: Bytes32
    reader: Address
    reader_key: Bytes32
    content: Bytes32


class Receipt(SignedType):
    """A market's matcher will consider the order `order` in epoch `epoch` at the latest; never on chain.

    `block` is the newest that the market had followed at `time`, when it accepted the order.
    """

    TYPE = (("bytes32", "order"), ("uint64", "epoch"), ("uint64", "block"), ("uint40", "time"))
    order: Bytes32
    epoch: Uint64
    block: Uint64
    time: Uint40


def compact_signature(r: int, s: int, y_parity: int) -> bytes:
    """EIP-2098: 64 bytes, the parity in the top bit of s."""
    return r.to_bytes(32, "big") + ((y_parity << 255) | s).to_bytes(32, "big")


def recover(digest: bytes, signature: bytes) -> str | None:
    """Signer of a 65-byte (r, s, v) or 64-byte (EIP-2098) signature with low s, as the escrow recovers it."""
    if len(signature) == 64:
        r, vs = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        s, parity = vs & ((1 << 255) - 1), vs >> 255
    elif len(signature) == 65:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        parity = signature[64] - 27
    else:
        return None
    if parity not in (0, 1) or s > SECP256K1_HALF_ORDER:
        return None
    try:
        key = EcdsaSignature(vrs=(parity, r, s)).recover_public_key_from_msg_hash(digest)
    except Exception:  # any malformed point means: nobody's signature
        return None
    return key.to_checksum_address()


def new_account() -> LocalAccount:
    account: LocalAccount = Account.create()
    return account
