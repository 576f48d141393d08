"""Earnings of many leases are found in one search of the chain, not in one for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.chain import lookup
from contracts.chain.client import Chain, connect
from contracts.chain.devnet.devnet import Devnet
from tests.support.devnet import TOKEN, Funded
from tests.support.limited_node import LimitedNode, limited_node
from tests.support.stepped_market import Lives, lives
from worker.agent.earnings import EarningsReader

__all__ = ["limited_node"]


@pytest.fixture
def market(chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path) -> Iterator[Lives]:
    people = funded(2) + funded(3, free=200 * TOKEN)
    url = f"sqlite:///{tmp_path}/market.sqlite3"
    with lives(chain, tmp_path, people, devnet.settings.rules["unchecked"], url) as made:
        yield made


@pytest.mark.parametrize(("at_once", "searches"), [(2, 2), pytest.param(100, 1, marks=pytest.mark.long)])
def test_all_leases_are_searched_for_at_once(
    market: Lives, limited_node: LimitedNode, at_once: int, searches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "LEASES_AT_ONCE", at_once)
    (mine, other), made = market.providers, (2, 0, 3)
    jobs = [market.post_bid() for _ in made]
    market.post_ask(mine, max_active=3)
    assert market.clear() is not None
    theirs = market.post_bid()
    market.post_ask(other)
    assert market.clear() is not None
    leases = [market.lease_of(job) for job in jobs]
    assert {lease.provider for lease in leases} == {mine.address}
    for lease, count in zip([*leases, market.lease_of(theirs)], [*made, 1], strict=True):
        if count:
            market.make(lease, count)
            market.redeem(lease)
    chain = connect(market.chain.settings.model_copy(update={"rpc_url": limited_node.url}))
    limited_node.asked.clear()
    rows = EarningsReader(chain, mine.address).by_lease()
    assert len(limited_node.questions("eth_getLogs")) == 1 + searches
    found = {row.lease: (row.job, row.checkpoints, row.paid, row.penalties) for row in rows}
    expected = zip(leases, jobs, made, strict=True)
    assert found == {lease.id: (job.id, count, count * TOKEN, 0) for lease, job, count in expected}
    assert [row.gas_wei > 0 for row in sorted(rows, key=lambda row: row.checkpoints)] == [False, True, True]
    days = EarningsReader(chain, mine.address).by_day()
    assert (sum(day.paid for day in days), sum(day.gas_wei for day in days)) == (
        5 * TOKEN, sum(row.gas_wei for row in rows),
    )  # fmt: skip
