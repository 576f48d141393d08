"""What a provider's history says of it."""

import pytest
from eth_utils.address import to_checksum_address

from contracts.chain.events import Approved, Challenged, Claimed, Closed, Ended, Opened, Place, Resolved
from contracts.chain.ledger import Ledger
from contracts.chain.reliability import NOBODY, STEPS, Record, records, tier
from contracts.job.spec import MAX_TIER
from contracts.terms import Flag, Nums, Parties, Phase, Terms, Verdict
from contracts.types import ZERO_HASH, ZERO_TIP, to_hex

CLIENT, PROVIDER = (to_checksum_address("0x" + digit * 40) for digit in "12")
TIP = "0x" + "aa" * 20
AT = Place(1, ZERO_HASH, 0, ZERO_HASH, 100)


@pytest.mark.parametrize(
    ("record", "reached"),
    [
        (NOBODY, 0),
        (Record(accepted=9, leases=3), 0),
        (Record(accepted=10, leases=3), 1),
        (Record(accepted=10, leases=4, late=1), 0),
        (Record(accepted=10, leases=5, late=1), 1),
        (Record(accepted=100, leases=9, late=1), 1),
        (Record(accepted=100, leases=10, late=1), 2),
        (Record(accepted=999, leases=1), 2),
        (Record(accepted=1_000, leases=1), 3),
        (Record(accepted=1_000, leases=99, late=2), 2),
        (Record(accepted=10**6, leases=100, late=2), 3),
        (Record(accepted=10**6, leases=10**6, convicted=1), 0),
    ],
)
def test_tiers(record: Record, reached: int) -> None:
    assert tier(record) == reached


def test_each_tier_asks_for_more_than_the_one_below() -> None:
    assert len(STEPS) == MAX_TIER
    for rising in zip(*STEPS, strict=True):
        assert list(rising) == sorted(set(rising))


class History:
    """A ledger that leases are added to."""

    def __init__(self) -> None:
        self.ledger, self.opened = Ledger(), 0
        for owner in (CLIENT, PROVIDER):
            self.ledger.account(owner).free = 10**6

    def open(self, prev: str = ZERO_HASH) -> str:
        self.opened += 1
        bid = to_hex(self.opened.to_bytes(32, "big"))
        parties = Parties(bid, ZERO_HASH, prev, ZERO_HASH, CLIENT, CLIENT, CLIENT, stake=100)
        terms = Terms(PROVIDER, Nums(start=2, end=6, window=10, timeout=50, price=1, fee=0, ask_price=1), parties)
        self.ledger.apply(Opened(AT, terms.lease, PROVIDER, CLIENT, ZERO_HASH, terms, TIP))
        return terms.lease

    @property
    def record(self) -> Record:
        return records(self.ledger)[PROVIDER]


def test_what_was_paid_counts_also_once_the_escrow_has_forgotten_it() -> None:
    history = History()
    lease = history.open()
    assert history.record == Record(accepted=0, leases=1)
    history.ledger.apply(Claimed(AT, lease, 4, (ZERO_HASH,) * 2))
    assert history.record.accepted == 0  # claimed is not accepted
    history.ledger.apply(Approved(AT, lease, 5, TIP))
    history.ledger.apply(Closed(AT, lease, 5, 0, True))
    assert history.record == Record(accepted=3, leases=1)
    history.open(prev=lease)
    assert history.record == Record(accepted=3, leases=2)


def test_who_was_late_was_late_though_it_is_forgiven() -> None:
    history = History()
    lease = history.open()
    history.ledger.apply(Ended(AT, lease, CLIENT, Phase.CLOSING | Flag.LATE))
    history.ledger.apply(Approved(AT, lease, 3, TIP))
    assert not history.ledger.leases[lease].state.status & Flag.LATE
    assert history.record == Record(accepted=1, leases=1, late=1)
    history.ledger.apply(Closed(AT, lease, 3, 0, True))
    history.ledger.apply(Ended(AT, lease, CLIENT, 0))  # its client cancels the rest
    assert history.record == Record(accepted=1, leases=1, late=1)


def test_a_challenge_convicts_only_if_it_was_right() -> None:
    history = History()
    for verdict in Verdict:
        lease = history.open()
        history.ledger.apply(Claimed(AT, lease, 3, (ZERO_HASH,)))
        history.ledger.apply(Challenged(AT, lease, ZERO_HASH, CLIENT, 3, TIP, ZERO_HASH, 0, ZERO_TIP, 2, CLIENT, 1))
        history.ledger.apply(Resolved(AT, lease, ZERO_HASH, verdict))
        assert history.record == Record(leases=verdict + 1, convicted=int(verdict >= 2), void=int(verdict >= 3))
