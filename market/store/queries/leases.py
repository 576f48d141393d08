"""A stored lease as the escrow's types have it."""

from contracts.api.bodies import LeaseState
from contracts.finality import Finality, at_stake
from contracts.terms import Flag, Nums, Parties, Phase, StateWord, Terms
from market.store.models import LeaseRow


def terms_of(row: LeaseRow) -> Terms:
    """All that the lease's id commits to."""
    return Terms(
        provider=row.provider,
        nums=nums_of(row),
        parties=Parties(row.bid, row.job, row.prev, row.rules, row.client, row.approver, row.fee_to, row.stake),
    )


def nums_of(row: LeaseRow) -> Nums:
    return Nums(row.start, row.end, row.window, row.timeout, row.price, row.fee, row.ask_price)


def is_final(row: LeaseRow, finality: Finality, head: int) -> bool:
    """Whether what happened last to the lease is deep enough for all that it holds."""
    return finality.is_final(row.changed_block, head, at_stake(row, row.stake))


def phase_of(row: LeaseRow) -> Phase:
    return Phase(row.status & 7)


def state_now(row: LeaseRow, now: int) -> LeaseState:
    """The state with the acceptance window applied, as the escrow's next call will see it."""
    stored = StateWord(row.status, row.settled, row.accepted, row.claimed, row.t, int(row.tip, 16))
    state = stored.synced(nums_of(row), now)
    return LeaseState(
        phase=state.phase.name.lower(),
        flags=[str(flag.name).lower() for flag in Flag if flag & state.flags],
        settled=state.settled,
        accepted=state.accepted,
        claimed=state.claimed,
        t=state.t,
        tip=row.tip,
    )
