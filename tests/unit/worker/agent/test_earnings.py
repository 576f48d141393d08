"""What a lease's events paid."""

import io

from contracts.chain.events import Approved, Claimed, Closed, Ended, Event, Opened, Place, Settled
from contracts.types import ZERO_HASH
from tests.support.worker_leases import CLIENT, PROVIDER, make_bid, make_spec, make_terms
from worker.agent.earnings import Earning, payments, total, write_csv

AT = Place(3, ZERO_HASH, 0, ZERO_HASH, 0)
TERMS = make_terms(make_bid(make_spec()), start=1)
OPENED = Opened(AT, TERMS.lease, PROVIDER.address, CLIENT.address, ZERO_HASH, TERMS, "0x" + "00" * 20)


def approved(n: int) -> Event:
    return Approved(AT, TERMS.lease, n, "0x" + "00" * 20)


def moved(*events: Event) -> list[tuple[int, int]]:
    return [(payment.checkpoints, payment.penalty) for payment in payments(OPENED, events)]


def test_each_checkpoint_is_paid_once() -> None:
    assert moved(OPENED, approved(2), approved(4)) == [(1, 0), (2, 0)]
    assert moved(OPENED, Claimed(AT, TERMS.lease, 3, (ZERO_HASH,) * 2)) == []  # a claim pays nothing yet
    assert moved(OPENED, approved(3), Settled(AT, TERMS.lease, 3), Settled(AT, TERMS.lease, 5)) == [(2, 0), (2, 0)]
    ended = Ended(AT, TERMS.lease, PROVIDER.address, 0)
    assert moved(OPENED, approved(3), ended, Closed(AT, TERMS.lease, 4, 0, True)) == [(2, 0), (1, 0)]


def test_a_penalty_counts_even_if_nothing_was_paid() -> None:
    assert moved(OPENED, Closed(AT, TERMS.lease, 1, 50, True)) == [(0, 50)]
    assert moved(OPENED, Closed(AT, TERMS.lease, 1, 0, True)) == []


def test_totals_and_csv() -> None:
    row = Earning("2030-01-01", TERMS.lease, ZERO_HASH, CLIENT.address, 2, 20, 5, 7, True)
    assert total([row, row]) == {"checkpoints": 4, "paid": 40, "penalties": 10, "net": 30, "gas_wei": 14}
    file = io.StringIO()
    write_csv([row], file)
    heading, line = file.getvalue().splitlines()
    assert heading == "day,lease,job,client,checkpoints,paid,penalties,net,gas_wei,final,verdict"
    assert line == f"2030-01-01,{TERMS.lease},{ZERO_HASH},{CLIENT.address},2,20,5,15,7,True,"
