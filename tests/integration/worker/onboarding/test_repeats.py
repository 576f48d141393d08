"""The selftest's proof that a machine repeats itself, and that a machine's numerics class is told as it is now."""

from pathlib import Path

import pytest

from contracts.commitment import machine_class
from contracts.orders import Rules
from contracts.types import ZERO_ADDRESS, ZERO_HASH, to_hex
from tests.support.whole_market import RESOURCES
from worker.onboarding.register import with_numerics_of_now
from worker.onboarding.repeats import SECOND
from worker.onboarding.selftest import Selftest
from worker.sandbox.runner import Runner
from worker.settings import ProviderSettings, read_provider_settings, write_provider_settings
from worker.training.environment import CPU_LIBRARIES
from worker.training.messages import HarnessConfig

RULES = Rules(arbiter=ZERO_ADDRESS, arbiter_fee=1, arbiter_timeout=1, checkpoint_timeout=1, window=1,
              verification=ZERO_HASH)  # fmt: skip
SETTINGS = ProviderSettings(
    market_url="http://127.0.0.1:1", price_per_hour=1, units_per_hour=1, max_stake=1, rules_name="test", rules=RULES,
    resources=RESOURCES,
)  # fmt: skip


def test_a_machine_that_does_not_repeat_itself_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one would be whose memory fails: here the second process begins with other weights."""
    config = Runner._config

    def spoilt(runner: Runner) -> HarnessConfig:
        found = config(runner)
        return found.model_copy(update={"seed": 2}) if runner.folder.name == SECOND else found

    monkeypatch.setattr(Runner, "_config", spoilt)
    found = Selftest("rig", SETTINGS, measure_seconds=1)._repeats()
    assert found.verdict == "fail"
    assert found.found.startswith(
        "the CPU does not repeat itself: of the same steps, trained twice, step 1 differs: loss"
    )


@pytest.mark.long
def test_a_machine_that_repeats_itself() -> None:
    assert Selftest("rig", SETTINGS, measure_seconds=1)._repeats().verdict == "ok"


def test_the_class_that_an_ask_tells_is_measured_anew_when_the_machine_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    assert with_numerics_of_now("rig", SETTINGS) == SETTINGS  # it tells none
    registered = SETTINGS.model_copy(update={"resources": RESOURCES.model_copy(update={"numerics": "0x" + "77" * 32})})
    write_provider_settings("rig", registered)
    assert read_provider_settings("rig") == registered
    now = with_numerics_of_now("rig", registered)
    assert now.resources.numerics != registered.resources.numerics and read_provider_settings("rig") == now
    assert now.resources.hash() != registered.resources.hash() != SETTINGS.resources.hash()
    # Not again before something has changed: else these would be other numerics.
    monkeypatch.setitem(CPU_LIBRARIES, "ATEN_CPU_CAPABILITY", "default")
    assert with_numerics_of_now("rig", now) == now


def test_threads_are_no_part_of_a_machine() -> None:
    facts = {"torch": "2.13.0", "threads": 1}
    assert machine_class(facts) == machine_class(facts | {"threads": 4}) != machine_class({"torch": "2.13.1"})
    assert "numerics" not in RESOURCES.model_dump() and to_hex(machine_class(facts)).startswith("0x")
