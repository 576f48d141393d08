"""A stored lease is shown as the escrow's next call will find it."""

from contracts.terms import Flag, Phase, StateWord
from market.store.models import LeaseRow
from market.store.queries.leases import nums_of, state_now

HASH, ADDRESS, TIP = "0x" + "11" * 32, "0x" + "22" * 20, "0x" + "33" * 20


def row(status: int) -> LeaseRow:
    return LeaseRow(
        id=HASH, bid=HASH, ask=HASH, job=HASH, rules=HASH, prev=HASH, provider=ADDRESS, client=ADDRESS,
        approver=ADDRESS, fee_to=ADDRESS, stake=9, start=1, end=10, window=30, timeout=100, price=5, fee=0,
        status=status, settled=1, accepted=2, claimed=4, t=1000, tip=TIP, start_tip=TIP, opened_block=1, opened_tx=HASH,
    )  # fmt: skip


def test_with_the_window_applied_and_lateness_forgiven() -> None:
    status = Phase.CLOSING | Flag.LATE | Flag.BY_CLIENT
    lease, word = row(status), StateWord(status, 1, 2, 4, 1000, int(TIP, 16))
    for now in (1029, 1030):
        shown, synced = state_now(lease, now), word.synced(nums_of(lease), now)
        assert (shown.settled, shown.accepted, shown.claimed) == (synced.settled, synced.accepted, synced.claimed)
        assert shown.flags == [str(flag.name).lower() for flag in Flag if flag & synced.flags]
        assert (shown.phase, shown.t, shown.tip) == ("closing", 1000, TIP)
    assert state_now(lease, 1029).flags == ["by_client", "late"] and state_now(lease, 1030).flags == ["by_client"]
