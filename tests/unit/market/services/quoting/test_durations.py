"""How long a checkpoint takes on a machine, and from what that is told."""

from contracts.job.measured import MeasuredOn, SecondsBasis
from market.client.cli.common import short_time
from market.services.quoting.durations import Duration, expected_duration
from tests.support.small_books import PARTIES, ask_offer

ASK = ask_offer(1, {"device": "Fast GPU"}, units_per_hour=3_600_000)
HERE = MeasuredOn(device="Fast GPU", threads=1, units_per_hour=3_600_000, seconds=2)


def test_what_is_known_best_is_told() -> None:
    elsewhere = HERE.model_copy(update={"device": "Slow CPU"})
    recorded = {ASK.provider: 5.0}
    assert expected_duration(ASK, 2_000, HERE, recorded) == Duration(5.0, SecondsBasis.RECORDED)
    assert expected_duration(ASK, 2_000, HERE, {PARTIES[0]: 5.0}) == Duration(2.0, SecondsBasis.MEASURED)
    assert expected_duration(ASK, 2_000, elsewhere, {}) == Duration(2.0, SecondsBasis.ELSEWHERE)
    assert expected_duration(ASK, 2_000, None, {}) == Duration(2.0, SecondsBasis.COUNTED)


def test_an_hour_costs_what_its_checkpoints_do() -> None:
    assert Duration(5.0, SecondsBasis.RECORDED).per_hour(1_000) == 720_000
    # A network of small kernels, by its FLOPs: an hour of that costs what the Ask takes, and not a thousandth of it.
    tiny = expected_duration(ASK, 1, None, {})
    assert tiny.seconds == 0.001 and tiny.per_hour(1) == 3_600_000


def test_no_time_is_shown_as_none() -> None:
    assert [short_time(seconds) for seconds in (0.0021, 2.345, 59.9, 61, 7_265)] == [
        "0.0021 s", "2.35 s", "59.9 s", "0:01:01", "2:01:05",
    ]  # fmt: skip
