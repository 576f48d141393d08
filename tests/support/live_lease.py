"""A live lease at a market without a chain, and claims for it, for tests of what is said of leases."""

from collections.abc import Callable
from typing import Any

from contracts.api.bodies import CheckpointRecord, ProgressIn
from contracts.api.problems import Code
from market.store.models import ApprovalRow, CheckpointRow, LeaseRow, RejectionRow, ReportRow
from tests.support.market_parts import (
    make_record,
    signed_progress,
)
from tests.support.offline_market import DOMAIN, World


def claim(world: World, lease: LeaseRow, index: int, before: str, **changes: Any) -> ProgressIn:
    record = make_record(lease.job, index, before, **changes)
    return signed_progress(lease.id, record, DOMAIN, world.provider)


def report_up_to(world: World, lease: LeaseRow, n: int) -> list[CheckpointRecord]:
    """Claims of checkpoints 1 .. n, taken by the market."""
    records: list[CheckpointRecord] = []
    for index in range(1, n + 1):
        body = claim(world, lease, index, records[-1].tip if records else lease.tip)
        world.api.post_progress(body)
        records.append(body.checkpoint)
    return records


def refuses(world: World, call: Callable[[], object], status: int, code: Code) -> Any:
    """Refused, and nothing of it is stored."""
    models = (CheckpointRow, ApprovalRow, RejectionRow, ReportRow)
    before = [world.count(model) for model in models]
    problem = world.refuses(call, status, code)
    assert [world.count(model) for model in models] == before
    return problem
