"""`job reprice` signs nothing for work that somebody did while it waited for an answer."""

import io
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.api.bodies import JobStatus
from contracts.cli.output import PlainConsole
from contracts.errors import UserError
from market.client.cli import reprice


def job(status: JobStatus, accepted: int, *leases: str) -> Any:
    return SimpleNamespace(
        id="0x" + "12" * 32,
        status=status,
        accepted=accepted,
        leases=[SimpleNamespace(id=id) for id in leases],
        bid=SimpleNamespace(client="0x", page=0),
        reason="",
        final=True,
    )


def replace(now: Any) -> Any:
    offer = SimpleNamespace(quote=SimpleNamespace(bid=SimpleNamespace(page=1)))
    sender = SimpleNamespace(send=lambda call, key: {"gasUsed": 1, "effectiveGasPrice": 1})
    chain = SimpleNamespace(account=lambda id: SimpleNamespace(page=1))
    parts: tuple[Any, ...] = (
        SimpleNamespace(job=lambda id: now),
        chain,
        job(JobStatus.PENDING, 1, "a"),
        SimpleNamespace(call="raise", key="page 1"),
        sender,
        lambda: offer,
        PlainConsole(file=io.StringIO()),
    )
    return reprice._replace(*parts)


@pytest.mark.parametrize(
    "now",
    [
        job(JobStatus.DONE, 4, "a", "b"),  # all of it
        job(JobStatus.CANCELLED, 2, "a", "b"),
        job(JobStatus.CANCELLED, 1, "a", "b"),  # a lease that made nothing may still make something
        job(JobStatus.RUNNING, 1, "a", "b"),
        job(JobStatus.EXPIRED, 2, "a"),
    ],
)
def test_what_was_opened_meanwhile_is_not_paid_twice(now: Any) -> None:
    with pytest.raises(UserError, match="was opened before it was cancelled"):
        replace(now)


def test_where_nothing_was_it_goes_on() -> None:
    assert replace(job(JobStatus.CANCELLED, 1, "a")).quote.bid.page == 1
