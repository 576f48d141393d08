"""What a replay costs in gas: opened in a batch with an epoch's other leases, and redeemed in a batch.

audit_gas        by how much both batches grow for each replay in them
audit_gas_alone  opened and redeemed by itself
"""

from collections.abc import Iterator
from typing import Any

from tests.bench import Figure
from tests.bench.gas import Chain, Lease, Market, anvil, words

REPLAYS, OTHERS = 20, 80  # of a batch


def figures() -> Iterator[Figure]:
    with anvil() as url:
        market = Market(Chain(url))
        people = [market.pair(i) for i in range(OTHERS + REPLAYS + 1)]
        jobs = [market.match(client, provider, 20) for client, provider in people[:OTHERS]]
        base = _batch(market, jobs, 20)
        jobs = [market.match(client, provider, 20) for client, provider in people[:OTHERS]]
        replays = [market.match(market.approver, provider, 1) for _, provider in people[OTHERS : OTHERS + REPLAYS]]
        both = _batch(market, jobs, 20, replays)
        lease, opened = market.open(market.approver, people[-1][1], 1)
        alone = opened + market.redeem(lease, 1)
    yield "audit_gas", (both - base) // REPLAYS, "gas a replay"
    yield "audit_gas_alone", alone, "gas a replay"


Order = tuple[Lease, tuple[Any, ...]]


def _batch(market: Market, jobs: list[Order], checkpoints: int, replays: list[Order] | None = None) -> int:
    """Gas of opening and of redeeming all of it."""
    chain, orders = market.chain, [*jobs, *(replays or [])]
    gas = chain.send(market.matcher, chain.escrow, "openBatch", [words(chain.rules)], [item for _, item in orders])
    approvals = [market.approval(lease, checkpoints) for lease, _ in jobs]
    approvals += [market.approval(lease, 1) for lease, _ in replays or []]
    return gas + chain.send(market.matcher, chain.escrow, "redeemBatch", approvals)
