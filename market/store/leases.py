"""A stored lease as the escrow's types have it. Pure."""

from contracts.api.bodies import LeaseState
from contracts.finality import Finality, at_stake
from contracts.terms import Flag, Nums, Parties, Phase, StateWord, Terms
from market.store.models import LeaseRow


def terms_of(row: LeaseRow) -> Terms:
    """All that the lease's id commits to."""
    return Terms(
        provider=row.provider,
        nums=Nums(row.start, row.end, row.window, row.timeout, row.price, row.fee),
        parties=Parties(row.bid, row.job, row.prev, row.rules, row.client, row.approver, row.fee_to, row.stake),
    )


def is_final(row: LeaseRow, finality: Finality, head: int) -> bool:
    """Whether what happened last to the lease is deep enough for all that it holds."""
    return finality.is_final(row.changed_block, head, at_stake(row, row.stake))


def accepted_now(row: LeaseRow, state: StateWord, now: int) -> int:
    """How far the lease is accepted once the next call has synced it: a window that has passed accepts."""
    passed = state.phase in (Phase.ACTIVE, Phase.CLOSING) and now >= state.t + row.window
    return state.claimed if passed else state.accepted


def phase_of(row: LeaseRow) -> Phase:
    return Phase(row.status & 7)


def state_now(row: LeaseRow, now: int) -> LeaseState:
    """The state with the acceptance window applied, as the escrow's next call will see it."""
    flags, accepted = Flag(row.status & 0xF8), row.accepted
    if phase_of(row) in (Phase.ACTIVE, Phase.CLOSING) and now >= row.t + row.window and row.claimed > accepted:
        accepted = row.claimed
        if phase_of(row) is Phase.CLOSING:
            flags &= ~Flag.LATE
    return LeaseState(
        phase=phase_of(row).name.lower(),
        flags=[str(flag.name).lower() for flag in Flag if flag & flags],
        settled=row.settled,
        accepted=accepted,
        claimed=row.claimed,
        t=row.t,
        tip=row.tip,
    )
