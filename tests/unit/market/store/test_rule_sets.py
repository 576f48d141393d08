"""Which rule-sets of config.toml a market offers, and what it publishes of them."""

from types import SimpleNamespace
from typing import Any

import pytest

from contracts.audits.levels import BEFORE, OPEN, SHIPPED, UNCHECKED
from contracts.audits.verification import Verification
from contracts.chain.devnet.devnet import BOUNDS
from contracts.errors import UserError
from contracts.settings import Settings
from market.store.queries.rule_sets import offered_rules
from tests.support.offline_market import RULES

CHAIN: Any = SimpleNamespace(bounds=lambda: BOUNDS)


def settings(verification: str, json: Verification | None = None) -> Settings:
    rules = {"mine": RULES.model_copy(update={"verification": verification, "window": 3600})}
    return Settings(rules=rules, verifications={"mine": json} if json else {})


def test_the_json_is_published_with_the_rules() -> None:
    (offered,) = offered_rules(CHAIN, settings(UNCHECKED.hash())).values()
    assert (offered.verification, offered.level) == (UNCHECKED, "unchecked")
    assert offered.description.startswith("unchecked; ")
    offered.check()


def test_rules_of_before_go_on() -> None:
    (offered,) = offered_rules(CHAIN, settings(min(BEFORE))).values()
    assert (offered.verification, offered.level) == (None, "unchecked")
    offered.check()


def test_a_hash_of_which_nobody_has_the_json() -> None:
    with pytest.raises(UserError, match=r"'mine' commits to the verification 0x(ab){32}, and nobody knows") as caught:
        offered_rules(CHAIN, settings("0x" + "ab" * 32))
    assert 'verifications.mine, or write level = "open"' in str(caught.value.hint)


@pytest.mark.parametrize("json", [SHIPPED["open"], SHIPPED["closed"], OPEN.model_copy(update={"share_ppm": 1})])
def test_any_level_is_offered(json: Verification) -> None:
    (offered,) = offered_rules(CHAIN, settings(json.hash(), json)).values()
    assert (offered.verification, offered.level) == (json, json.level)
    offered.check()
