"""provider.toml: written and read alike, and explained; and the Ask that it comes to."""

from pathlib import Path

import pytest

from contracts.api.bodies import AskResources
from contracts.errors import UserError
from tests.agent_world import RULES
from worker.offer import Offer, offer_path, read_offer, to_toml, write_offer

OFFER = Offer(
    market_url="http://market.example:8600",
    price_per_hour=800_000,
    units_per_hour=2**63,
    max_stake=100,
    rules_name="audited",
    rules=RULES,
    resources=AskResources(
        device='A "quoted" GPU', gpus=1, vram_mb=24_000, memory_mb=8_000, environments=("torch-2.13",), sandbox="none"
    ),
    patience=2.5,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))


def test_an_offer_is_read_as_it_was_written() -> None:
    write_offer("rig", OFFER)
    assert read_offer("rig") == OFFER


def test_every_setting_is_in_the_file_and_those_with_a_default_are_explained() -> None:
    text = to_toml(OFFER)
    for name, field in Offer.model_fields.items():
        line = next(
            line for line in text.splitlines() if line.removeprefix("# ").startswith((f"{name} =", f"[{name}]"))
        )
        if not field.is_required() and name not in ("device", "threads"):
            assert field.description is not None and field.description in line


def test_what_is_left_to_the_agent_is_a_comment() -> None:
    assert "# margin =  # to the deadline" in to_toml(OFFER)
    assert "\npatience = 2.5" in to_toml(OFFER)


def test_a_typo_names_the_nearest_setting() -> None:
    write_offer("rig", OFFER)
    path = offer_path("rig")
    path.write_text(path.read_text().replace("patience =", "patiense ="))
    with pytest.raises(UserError, match="unknown field 'patiense'") as caught:
        read_offer("rig")
    assert caught.value.hint == "Did you mean 'patience'?"


def test_a_key_that_is_not_registered_says_how() -> None:
    with pytest.raises(UserError, match="not registered") as caught:
        read_offer("other")
    assert caught.value.hint == "gpumarket provider register --key other"
