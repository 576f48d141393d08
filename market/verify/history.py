"""What the chain says: the escrow's books as of the end of a block, and what happened after it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

from eth_typing import BlockNumber, HexStr
from web3.exceptions import BlockNotFound, Web3RPCError

from contracts.chain.asking.node import NodeRefused
from contracts.chain.client import Chain
from contracts.chain.events import Ended, Event, Opened, continued
from contracts.chain.ledger import LeaseView, Ledger, LedgerError
from contracts.chain.reliability import NOBODY, client_records, records, standing, tier
from contracts.chain.signatures import is_signed_by
from contracts.errors import UserError
from contracts.job.provider_wants import UNKNOWN, Standing
from contracts.orders import Domain, SignedType
from contracts.terms import AccountWord, Flag
from contracts.types import to_hex


class BlockFacts(NamedTuple):
    number: int
    hash: str
    timestamp: int  # UTC seconds


class Node(Protocol):
    """What is asked of an Ethereum node beside events."""

    @property
    def domain(self) -> Domain: ...

    @property
    def decimals(self) -> int:
        """Of the token."""

    def block(self, number: int | None = None) -> BlockFacts | None:
        """The newest, or the one with that number; None: there is none yet."""

    def accounts(self, owners: Iterable[str], block: int | None = None) -> dict[str, AccountWord] | None:
        """As of now, or of the end of a block; None: the node has forgotten what accounts were like then."""

    def is_wallet(self, owner: str) -> bool:
        """Whether it is a contract, which may change its mind about signatures."""

    def is_signed(self, message: SignedType, signer: str, signature: str) -> bool: ...

    def sender(self, transaction: str) -> str: ...


class ChainNode:
    """A `Node` that is one."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.domain = chain.domain

    @property
    def decimals(self) -> int:
        return self.chain.decimals

    def block(self, number: int | None = None) -> BlockFacts | None:
        try:
            header = self.chain.w3.eth.get_block("latest" if number is None else BlockNumber(number))
        except BlockNotFound:
            return None
        return BlockFacts(header["number"], to_hex(header["hash"]), int(header["timestamp"]))

    def accounts(self, owners: Iterable[str], block: int | None = None) -> dict[str, AccountWord] | None:
        wanted = sorted(set(owners))
        try:
            return dict(zip(wanted, self.chain.accounts(wanted, "latest" if block is None else block), strict=True))
        except (Web3RPCError, NodeRefused) as error:
            may_pass = isinstance(error, NodeRefused) and error.status not in (400, 402, 403)
            if block is None or may_pass:
                raise
            return None

    def is_wallet(self, owner: str) -> bool:
        return bool(self.chain.w3.eth.get_code(self.chain.w3.to_checksum_address(owner)))

    def is_signed(self, message: SignedType, signer: str, signature: str) -> bool:
        return is_signed_by(self.chain, message, signer, signature)

    def sender(self, transaction: str) -> str:
        return str(self.chain.w3.eth.get_transaction(HexStr(transaction))["from"])


@dataclass
class Past:
    """The escrow's books as of the end of `block`, and all events after it."""

    block: int
    ledger: Ledger
    after: list[Event] = field(default_factory=list)
    changed: dict[str, int] = field(default_factory=dict)  # lease -> block of the newest event that is part of its fold
    late: dict[str, int] = field(default_factory=dict)  # lease -> block in which it ended, its provider being silent

    @cached_property
    def _by_bid(self) -> dict[str, list[LeaseView]]:
        found: dict[str, list[LeaseView]] = {}
        for lease in self.ledger.leases.values():
            found.setdefault(lease.terms.parties.bid, []).append(lease)
        return found

    def leases_of(self, bid: str) -> list[LeaseView]:
        """Oldest first."""
        return self._by_bid.get(bid, [])

    @cached_property
    def tiers(self) -> Mapping[str, int]:
        return {provider: tier(record) for provider, record in records(self.ledger).items()}

    def tier(self, provider: str) -> int:
        return self.tiers.get(provider, tier(NOBODY))

    @cached_property
    def standings(self) -> Mapping[str, Standing]:
        return {client: standing(record) for client, record in client_records(self.ledger).items()}

    def standing(self, client: str) -> Standing:
        return self.standings.get(client, UNKNOWN)

    @cached_property
    def opened_later(self) -> set[str]:
        """Bids with a lease that was opened after the block."""
        return {event.terms.parties.bid for event in self.after if isinstance(event, Opened)}


def look_back(events: Iterable[Event], block: int) -> Past:
    """`events`: all since the escrow was deployed, in order. Raises UserError."""
    past = Past(block, Ledger())
    for event in events:
        if event.at.block > block:
            past.after.append(event)
            continue
        try:
            past.ledger.apply(event)
        except LedgerError as error:
            raise UserError(
                f"the node's events do not add up: {error}",
                "Compare `deploy_block` in the settings with the deployment's; it must not be later.",
            ) from error
        for lease in (getattr(event, "lease", None), continued(event)):
            if lease is not None:
                past.changed[lease] = event.at.block
        if isinstance(event, Ended) and event.status & Flag.LATE:
            past.late.setdefault(event.lease, event.at.block)
    return past
