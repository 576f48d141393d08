"""provider.toml: written and read alike, and explained; and the Ask that it comes to."""

import re
from pathlib import Path

import pytest

from contracts.errors import UserError
from contracts.job.provider_wants import Wants
from tests.support.worker_leases import OFFER
from worker.settings import (
    TABLES,
    MoneyRules,
    OwnerRules,
    ProviderSettings,
    provider_settings_path,
    read_provider_settings,
    to_toml,
    write_provider_settings,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))


def test_an_offer_is_read_as_it_was_written() -> None:
    write_provider_settings("rig", OFFER)
    assert read_provider_settings("rig") == OFFER


def test_every_setting_is_in_the_file_and_those_with_a_default_are_explained() -> None:
    text = to_toml(OFFER)
    for name, field in ProviderSettings.model_fields.items():
        line = next(
            line for line in text.splitlines() if line.removeprefix("# ").startswith((f"{name} =", f"[{name}]"))
        )
        if not field.is_required() and name not in ("device", "threads"):
            assert field.description is not None and field.description in line
    for table in ("wants", "owner", "money"):
        part = text.split(f"[{table}]")[1].split("\n[")[0]
        for name, field in TABLES[table].model_fields.items():
            assert f"{name} =" in part and str(field.description) in part


def test_what_is_left_to_the_agent_is_a_comment() -> None:
    assert "# margin =  # to the deadline" in to_toml(OFFER)
    assert "\npatience = 2.5" in to_toml(OFFER)


def test_a_typo_names_the_nearest_setting() -> None:
    write_provider_settings("rig", OFFER)
    path = provider_settings_path("rig")
    path.write_text(path.read_text().replace("patience =", "patiense ="))
    with pytest.raises(UserError, match="unknown field 'patiense'") as caught:
        read_provider_settings("rig")
    assert caught.value.hint == "Did you mean 'patience'?"


def test_a_key_that_is_not_registered_says_how() -> None:
    with pytest.raises(UserError, match="not registered") as caught:
        read_provider_settings("other")
    assert caught.value.hint == "gpumarket provider register --key other"


@pytest.mark.parametrize(
    ("line", "problem", "hint"),
    [
        ('[owner]\npawse = "mon 09:00-10:00"', "unknown field 'owner.pawse'", "Did you mean 'pause'?"),
        ('[owner]\npause = "mo 09:00-10:00"', "'mo 09:00-10:00' is not a span", None),
        ("[wants]\ndeny_client = []", "unknown field 'wants.deny_client'", "Did you mean 'deny_clients'?"),
        ('[wants]\ndeny_clients = ["0x12"]', "expected an address", None),
        ("[money]\nsweep_abov = 5", "unknown field 'money.sweep_abov'", "Did you mean 'sweep_above'?"),
        ("[money]\nsweep_above = 5", "go together", None),
        ("[money]\npay_over_gas = 2", "takes tokens_per_eth", None),
        ('[money]\ntokens_per_eth = "1e3"', "not a decimal", None),
    ],
)
def test_a_wrong_table_is_explained(line: str, problem: str, hint: str | None) -> None:
    write_provider_settings("rig", OFFER)
    path = provider_settings_path("rig")
    path.write_text(path.read_text().partition("\n[wants]")[0] + f"\n{line}\n")
    with pytest.raises(UserError) as caught:
        read_provider_settings("rig")
    assert problem in caught.value.message
    assert hint is None or caught.value.hint == hint


def test_an_ask_says_what_is_wanted_and_registering_anew_keeps_it() -> None:
    client = "0x" + "11" * 20
    mine = OFFER.model_copy(
        update={
            "wants": Wants(deny_clients=(client,), min_pay=7),
            "owner": OwnerRules(pause="mon-fri 09:00-18:00"),
            "money": MoneyRules(sweep_above=5, sweep_to=client),
            "grace_seconds": 5,
        }
    )
    write_provider_settings("rig", mine)
    assert read_provider_settings("rig") == mine
    assert mine.sold().wants.deny_clients == (client,)
    assert [mine.sold(least).wants.min_pay for least in (3, 9)] == [7, 9]
    assert OFFER.sold().hash() == OFFER.resources.hash() != mine.sold().hash()
    assert OFFER.model_copy(update={"price_per_hour": 9}).as_before(mine) == mine.model_copy(
        update={"price_per_hour": 9}
    )


def test_an_amount_in_the_file_is_what_was_written() -> None:
    write_provider_settings("rig", OFFER)
    path = provider_settings_path("rig")
    path.write_text(path.read_text().replace("# tokens_per_eth =", "tokens_per_eth = 2500.10  #"))
    assert read_provider_settings("rig").money.tokens_per_eth == "2500.10"
    path.write_text(path.read_text().replace("tokens_per_eth = 2500.10", "tokens_per_eth = 2500"))
    assert read_provider_settings("rig").money.tokens_per_eth == "2500"
    path.write_text(re.sub(r"price_per_hour = \S+", "price_per_hour = 0.80", path.read_text()))
    with pytest.raises(UserError, match=r"price_per_hour: .*'0\.80'"):
        read_provider_settings("rig")
