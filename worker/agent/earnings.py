"""What a provider key has earned and spent, by the chain's own events: leases, payments, penalties, gas."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import IO, Any

from hexbytes import HexBytes
from web3.exceptions import BlockNotFound, Web3RPCError

from contracts.chain.client import Chain
from contracts.chain.events import Approved, Closed, Event, Opened, Resolved, Settled
from contracts.chain.lookup import events_by_lease, opened_by
from contracts.finality import KEPT_BLOCKS
from contracts.program.progress_bar import Watch, nobody
from contracts.terms import Verdict


@dataclass(frozen=True)
class Earning:
    """Of one lease, or of one day. Money in the token's smallest unit, gas in wei."""

    day: str  # UTC; of a lease: when it was opened
    lease: str
    job: str
    client: str
    checkpoints: int  # paid ones
    paid: int
    penalties: int
    gas_wei: int  # of this provider's transactions; what others sent costs it nothing
    final: bool  # the chain will not take it back any more
    verdict: str = ""  # of a lease: the arbiter's newest, in a word

    @property
    def net(self) -> int:
        """In tokens: gas is paid in the chain's coin, and stands apart."""
        return self.paid - self.penalties


FIELDS = ("day", "lease", "job", "client", "checkpoints", "paid", "penalties", "net", "gas_wei", "final", "verdict")
TOTALS = ("checkpoints", "paid", "penalties", "net", "gas_wei")


@dataclass(frozen=True)
class Payment:
    """What one event paid or took."""

    event: Event
    checkpoints: int
    penalty: int


def payments(opening: Opened, events: Iterable[Event]) -> list[Payment]:
    """The events of a lease that moved its provider's money, in order. Pure."""
    found, settled, stake_lost = [], opening.terms.nums.start, False
    for event in events:
        match event:
            case Resolved(verdict=Verdict.FALSE | Verdict.VOID):
                stake_lost = True
                continue
            case Approved(n=n) | Settled(n=n):
                reached, penalty = max(settled, n), 0
            case Closed(accepted=accepted, penalty=lost):
                reached, penalty = max(settled, accepted), opening.terms.parties.stake if stake_lost else lost
            case _:
                continue
        if reached > settled or penalty:
            found.append(Payment(event, reached - settled, penalty))
        settled = reached
    return found


class EarningsReader:
    """Reads the chain for one provider; blocks and receipts once each."""

    def __init__(self, chain: Chain, provider: str, watch: Watch = nobody) -> None:
        self._chain, self._provider, self._watch = chain, provider, watch
        self._days: dict[int, str] = {}
        self._gas: dict[str, int] = {}
        self._final = _final_block(chain)

    def by_lease(self) -> list[Earning]:
        """One row a lease, oldest first."""
        return [self._sum(opening, events) for opening, events in self._leases()]

    def by_day(self) -> list[Earning]:
        """One row a day and finality. Payments count on the day they were made, as does gas."""
        rows: dict[tuple[str, bool], Earning] = {}
        spent: set[str] = set()
        for opening, events in self._leases():
            paying = {id(payment.event): payment for payment in payments(opening, events)}
            price = opening.terms.nums.price
            for event in events:
                key = (self._day(event.at.block), event.at.block <= self._final)
                row = rows.setdefault(key, Earning(key[0], "", "", "", 0, 0, 0, 0, key[1]))
                gas = 0 if event.at.transaction in spent else self._gas_of(event.at.transaction)
                spent.add(event.at.transaction)
                payment = paying.get(id(event), Payment(event, 0, 0))
                rows[key] = replace(
                    row,
                    checkpoints=row.checkpoints + payment.checkpoints,
                    paid=row.paid + payment.checkpoints * price,
                    penalties=row.penalties + payment.penalty,
                    gas_wei=row.gas_wei + gas,
                )
        return [rows[key] for key in sorted(rows)]

    def _leases(self) -> list[tuple[Opened, list[Event]]]:
        newest = int(self._chain.w3.eth.block_number)
        first = self._chain.settings.deploy_block
        found = list(opened_by(self._chain, self._provider, first, newest, self._watch))
        opened = sorted((event for one in found for event in one.events), key=lambda event: event.at.block)
        events = events_by_lease(self._chain, {event.lease: event.at.block for event in opened}, self._watch)
        return [(event, events[event.lease]) for event in opened]

    def _sum(self, opening: Opened, events: Sequence[Event]) -> Earning:
        paid = payments(opening, events)
        checkpoints = sum(payment.checkpoints for payment in paid)
        return Earning(
            day=self._day(opening.at.block),
            lease=opening.lease,
            job=opening.terms.parties.bid,
            client=opening.client,
            checkpoints=checkpoints,
            paid=checkpoints * opening.terms.nums.price,
            penalties=sum(payment.penalty for payment in paid),
            gas_wei=sum(self._gas_of(transaction) for transaction in {event.at.transaction for event in events}),
            final=all(payment.event.at.block <= self._final for payment in paid),
            verdict=next((Verdict(one.verdict).said for one in reversed(events) if isinstance(one, Resolved)), ""),
        )

    def _day(self, block: int) -> str:
        if block not in self._days:
            moment = self._chain.w3.eth.get_block(block)["timestamp"]
            self._days[block] = datetime.fromtimestamp(moment, UTC).date().isoformat()
        return self._days[block]

    def _gas_of(self, transaction: str) -> int:
        """In wei; 0 if somebody else sent it."""
        if transaction not in self._gas:
            receipt = self._chain.w3.eth.get_transaction_receipt(HexBytes(transaction))
            ours = receipt["from"] == self._provider
            self._gas[transaction] = receipt["gasUsed"] * int(receipt["effectiveGasPrice"]) if ours else 0
        return self._gas[transaction]


def _final_block(chain: Chain) -> int:
    """The newest block that the chain will keep, as the node says; on a chain that doesn't tell, a deep one."""
    try:
        return int(chain.w3.eth.get_block("finalized")["number"])
    except (BlockNotFound, Web3RPCError):
        return int(chain.w3.eth.block_number) - KEPT_BLOCKS


def as_json(row: Earning) -> dict[str, Any]:
    """Money as decimal text: it may not fit a JSON number."""
    values = {name: getattr(row, name) for name in FIELDS}
    return values | {name: str(values[name]) for name in ("paid", "penalties", "net", "gas_wei")}


def total(rows: Iterable[Earning]) -> dict[str, int]:
    """Sums, those not yet final included."""
    rows = list(rows)
    return {name: sum(getattr(row, name) for row in rows) for name in TOTALS}


def write_csv(rows: Iterable[Earning], file: IO[str]) -> None:
    """One line a row, with a heading; money in the smallest unit, as the chain counts it."""
    writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_json(row) for row in rows)
