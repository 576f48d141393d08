"""What a market of a newer version says of itself, and what can be signed there."""

import json
from typing import Any

import pytest

from contracts.api.info import Info, RuleSet
from contracts.audits.levels import OPEN, UNCHECKED
from contracts.commitment import canonical_hash
from contracts.errors import UserError
from contracts.orders import Rules
from contracts.types import ZERO_ADDRESS, to_hex

OF_TOMORROW = OPEN.model_dump(mode="json") | {"version": 2, "committee": {"members": 7}, "arbiter": "committee"}


def rule_set(name: str, verification: dict[str, Any]) -> dict[str, Any]:
    rules = Rules(
        arbiter="0x00000000000000000000000000000000000a4B17", arbiter_fee=1, arbiter_timeout=30, checkpoint_timeout=20,
        window=4, verification=to_hex(canonical_hash(verification)),
    )  # fmt: skip
    return {
        "name": name, "hash": rules.struct_hash(), "rules": rules.model_dump(mode="json", by_alias=True),
        "verification": verification,
    }  # fmt: skip


def info_with(*rules: dict[str, Any]) -> str:
    fields = dict.fromkeys(("escrow", "token", "epoch_log", "matcher"), ZERO_ADDRESS)
    return json.dumps(
        fields
        | {
            "version": "9.0", "protocol": 2, "chain_id": "1", "token_symbol": "T", "token_decimals": 6,
            "approver": None, "fee": "0", "rules": list(rules), "epoch_seconds": 5.0, "finality": {},
            "max_blob_bytes": 1, "block": 1,
        }
    )  # fmt: skip


def test_a_rule_set_of_a_newer_version_does_not_hide_the_others() -> None:
    today = rule_set("today", UNCHECKED.model_dump(mode="json"))
    info = Info.model_validate_json(info_with(rule_set("tomorrow", OF_TOMORROW), today))
    newer, known = info.rules
    assert [one.name for one in info.rules] == ["tomorrow", "today"]
    assert newer.newer == "of a newer version: its verification has version 2, this program knows 1"
    with pytest.raises(UserError, match="the market's rules 'tomorrow' are of a newer version") as caught:
        newer.check()
    assert "Install the newest gpumarket" in str(caught.value.hint)
    assert (known.newer, known.verification) == (None, UNCHECKED)
    known.check()
    assert Info.model_validate(json.loads(info_with(today))).rules == [known]


@pytest.mark.parametrize("version", [0, -1, "2", 1.5, None, True])
def test_what_is_no_version_is_nonsense_as_before(version: Any) -> None:
    nonsense = rule_set("x", OPEN.model_dump(mode="json") | {"version": version})
    with pytest.raises(ValueError, match="version"):
        RuleSet.model_validate(nonsense)
    with pytest.raises(ValueError, match="committee"):
        RuleSet.model_validate(rule_set("x", OF_TOMORROW | {"version": 1}))
