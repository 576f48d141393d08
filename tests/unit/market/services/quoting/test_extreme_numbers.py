"""Numbers of strangers, as large and as small as they may be: nobody else's quote or list fails of them."""

import pytest
from structlog.testing import capture_logs

from contracts.amounts import MAX_AMOUNT
from contracts.api.offers import OfferOut
from contracts.api.problems import Problem
from contracts.job.measured import MeasuredOn, SecondsBasis
from market.client.cli.offers import offer_table
from market.services.quoting import offers as quoting_offers
from market.services.quoting.durations import MOST_PER_HOUR, Duration
from market.store.models import CheckpointRow
from tests.support.machines_on_offer import offers, post, quote_in
from tests.support.market_parts import make_record, make_spec, signed_progress
from tests.support.offline_market import DOMAIN, World

MOST_UNITS = (1 << 64) - 1
MOST_CHECKPOINTS = 65_535


def record(world: World, seconds: float) -> None:
    """A checkpoint of the client's job that took so long, by its provider's word."""
    world.api.post_ask(world.ask())
    lease = world.lease()
    record = make_record(lease.job, 1, lease.start_tip, seconds=seconds)
    world.api.post_progress(signed_progress(lease.id, record, DOMAIN, world.provider))


@pytest.mark.parametrize("seconds", [5e-324, 1e-250, 1e-40, 9e-7, 0.0, -0.0])
def test_a_time_that_no_clock_tells_is_not_gone_by(world: World, seconds: float) -> None:
    record(world, seconds)
    for body in (quote_in(world), quote_in(world, client=world.stranger.address)):
        (one,) = offers(world, job=body)
        assert one.job is not None
        assert (one.job.seconds_basis, one.job.seconds_per_checkpoint) == (SecondsBasis.COUNTED, 1.0)
        assert world.api.quote(body).seconds_basis == SecondsBasis.COUNTED


@pytest.mark.parametrize("seconds", [1e-6, 1.5, 1e9])
def test_a_time_that_may_be_is(world: World, seconds: float) -> None:
    record(world, seconds)
    (one,) = offers(world, job=quote_in(world))
    assert one.job is not None
    assert (one.job.seconds_basis, one.job.seconds_per_checkpoint) == (SecondsBasis.RECORDED, seconds)
    assert one.job.per_hour == round(one.job.price * 3600 / seconds)


@pytest.mark.parametrize("seconds", [1e300, float("inf"), float("nan"), "1e9", None])
def test_what_an_older_market_took_for_a_time(world: World, seconds: object) -> None:
    record(world, 1.5)
    with world.context.db.session() as session:
        row = session.get_one(CheckpointRow, (next(iter(world.api.leases())).id, 1))
        row.record = row.record | {"seconds": seconds}
        session.add(row)
    (one,) = offers(world, job=quote_in(world))
    assert one.job is not None and one.job.seconds_basis == SecondsBasis.COUNTED
    assert world.api.quote(quote_in(world)).seconds_basis == SecondsBasis.COUNTED


def test_an_hour_costs_no_more_than_can_be_said() -> None:
    assert Duration(2.0**-20, SecondsBasis.RECORDED).per_hour(MAX_AMOUNT) == MAX_AMOUNT * 3600 << 20
    for seconds in (5e-324, 1e-250, 1e-19):
        assert Duration(seconds, SecondsBasis.COUNTED).per_hour(MOST_PER_HOUR) == MOST_PER_HOUR
    assert Duration(1e300, SecondsBasis.COUNTED).per_hour(MOST_PER_HOUR) == 0


ASKS = [
    {"units_per_hour": 1, "price_per_hour": MAX_AMOUNT},
    {"units_per_hour": 1, "price_per_hour": 1},
    {"units_per_hour": MOST_UNITS, "price_per_hour": MAX_AMOUNT},
    {"units_per_hour": MOST_UNITS, "price_per_hour": 1},
]
MEASURED = [
    None,
    MeasuredOn(device="Test CPU", threads=1, units_per_hour=1, seconds=5e-324),
    MeasuredOn(device="Test CPU", threads=1, units_per_hour=(1 << 53) - 1, seconds=1e9),
]


@pytest.mark.parametrize("measured_on", MEASURED, ids=["counted", "fast", "slow"])
@pytest.mark.parametrize("units", [1, 10**9, MOST_UNITS])
def test_the_slowest_the_fastest_and_the_dearest(world: World, units: int, measured_on: MeasuredOn | None) -> None:
    honest = post(world).address
    for ask in ASKS:
        post(world, max_checkpoints=MOST_CHECKPOINTS, **ask)
    assert len(offers(world)) == 1 + len(ASKS)
    for steps in (1, MOST_CHECKPOINTS, MOST_CHECKPOINTS << 30):
        spec = make_spec(steps=steps, checkpoint_every=max(1, steps // MOST_CHECKPOINTS))
        job = quote_in(world, spec=spec, units=units, measured_on=measured_on)
        found = offers(world, job=job, misfits=True, limit=2)
        assert len(found) == 1 + len(ASKS) and honest in {one.provider for one in found}
        assert offer_table(found, world.api.info()).row_count == len(found)
        world.api.quote(job)
        for limits in ({"max_price": MAX_AMOUNT, "stake": MAX_AMOUNT}, {"max_price": 1, "stake": 0}, {"max_price": 0}):
            try:
                world.api.quote(job.model_copy(update=limits))
            except Problem as problem:
                assert problem.status == 422, problem


def test_an_ask_of_which_nothing_can_be_made_hides_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = post(world).address, post(world).address
    made = quoting_offers.OfferOut

    def out(**fields: object) -> OfferOut:
        if fields["provider"] == bad:
            raise OverflowError("as a number of it might do")
        return made.model_validate(fields)

    monkeypatch.setattr(quoting_offers, "OfferOut", out)
    with capture_logs() as logs:
        for _ in range(2):
            assert [one.provider for one in offers(world)] == [good]
    assert [line["table"] for line in logs if line["event"] == "market.unreadable_row"] == ["ask"]
    told = world.context.metrics.registry.get_sample_value("gpumarket_unreadable_rows_total", {"table": "ask"})
    assert told == 2
