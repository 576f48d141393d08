"""What rules commit to as their level of proof: one hash for one meaning, and nonsense is refused in a sentence."""

import json
from typing import Any

import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from contracts.api.info import RuleSet
from contracts.audits.levels import BEFORE, BY_HASH, CLOSED, OPEN, REVIEWED, SHIPPED, UNCHECKED
from contracts.audits.verification import (
    MAX_APPROVE_EVERY,
    MAX_LISTED,
    PPM,
    ThreadBounds,
    Verification,
    read_verification,
)
from contracts.errors import UserError
from contracts.orders import Rules
from tests.support.offline_market import RULES
from worker.recipes import FOLDER, NAMES
from worker.recipes import SHIPPED as SHIPPED_RECIPES

ONE, TWO = "0x" + "11" * 32, "0x" + "22" * 32
FIELDS = OPEN.model_dump(mode="json")


def hashes(most: int = 4) -> st.SearchStrategy[list[str]]:
    return st.lists(st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex()), max_size=most, unique=True)


@st.composite
def verifications(draw: st.DrawFn) -> Verification:
    level = draw(st.sampled_from(["open", "closed"]))
    least = draw(st.integers(1, 64))
    threads = draw(st.none() | st.integers(least, 64).map(lambda most: ThreadBounds(least=least, most=most)))
    recipes = draw(hashes().filter(bool)) if level == "closed" else []
    return read_verification(
        FIELDS
        | {
            "level": level,
            "share_ppm": draw(st.integers(1, PPM)),
            "approve_every": draw(st.integers(1, MAX_APPROVE_EVERY)),
            "classes": sorted(draw(hashes())),
            "threads": threads and threads.model_dump(),
            "recipes": sorted(recipes),
            "unreproducible": draw(st.sampled_from(["end", "unaudited"])),
        },
        "a test",
    )


@given(verifications(), verifications())
def test_one_hash_for_one_meaning(one: Verification, other: Verification) -> None:
    shown = json.loads(one.model_dump_json())
    assert read_verification(dict(reversed(shown.items())), "a test").hash() == one.hash()  # whatever the order
    text = json.dumps(shown, sort_keys=True, separators=(",", ":"))  # of such plain values RFC 8785 is no more
    assert "0x" + keccak(text.encode()).hex() == one.hash()
    assert (one == other) == (one.hash() == other.hash())


@given(verifications(), st.sampled_from(sorted(FIELDS)), st.integers(0, 2**70) | st.floats() | st.text(max_size=8))
def test_nonsense_is_a_sentence_with_the_value(one: Verification, field: str, value: Any) -> None:
    given = one.model_dump(mode="json") | {field: value}
    try:
        read = read_verification(given, "the JSON")
    except UserError as error:
        assert error.message.startswith(f"the JSON: {field}") or error.message.startswith("the JSON: ")
        assert len(error.message) < 600
    else:
        assert read.model_dump(mode="json") == given  # what is taken is taken as it stands


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"share_ppm": PPM + 1}, "share_ppm.*less than or equal to 1000000.*1000001"),
        ({"share_ppm": -1}, "share_ppm.*greater than or equal to 0.*-1"),
        ({"share_ppm": 0.2}, r"share_ppm.*valid integer.*0\.2"),
        ({"share_ppm": "200000"}, "share_ppm.*valid integer.*'200000'"),
        ({"share_ppm": True}, "share_ppm.*valid integer.*True"),
        ({"share_ppm": 0}, "share_ppm is 0 at the level 'open': nothing would be replayed; give a share"),
        ({"approve_every": 0}, "approve_every.*greater than or equal to 1.*0"),
        ({"approve_every": 101}, "approve_every.*less than or equal to 100.*101"),
        ({"version": 2}, "version.*2"),
        ({"level": "audited"}, "level.*'unchecked', 'open' or 'closed'.*'audited'"),
        ({"level": "closed"}, r"recipes is \[\] at the level 'closed'"),
        ({"recipes": [ONE]}, "recipes lists 1 at the level 'open'"),
        ({"level": "unchecked"}, "share_ppm is 200000 at the level 'unchecked'; say 0"),
        ({"level": "unchecked", "share_ppm": 0}, "approve_every is 6 at the level 'unchecked'"),
        (
            {"level": "unchecked", "share_ppm": 0, "approve_every": 1, "classes": [ONE]},
            "classes and threads bound audits",
        ),
        ({"classes": [TWO, ONE]}, f"{ONE} comes after {TWO}; put them in ascending order"),
        ({"classes": [ONE, ONE]}, f"{ONE} is there twice; leave one out"),
        ({"classes": ["0x12"]}, "0x and 64 hex digits, got '0x12'"),
        ({"classes": ONE}, "is not a list"),
        ({"classes": None}, r"None is not a list; write \[\] for none"),
        ({"classes": [f"0x{n:064x}" for n in range(MAX_LISTED + 1)]}, "classes.*at most 200"),
        ({"threads": {"least": 0, "most": 4}}, "threads.least.*greater than or equal to 1"),
        ({"threads": {"least": 9, "most": 4}}, "least is 9 and most is 4.*swap them"),
        ({"threads": {"least": 1}}, "threads.most' is missing"),
        ({"tolerance": 0}, "tolerance"),
        ({"arbiter": "operator"}, "arbiter is 'operator' at the level 'open'.*say 'recompute'"),
        ({"arbiter": "committee"}, "arbiter.*'committee'"),
        ({"unreproducible": None}, "unreproducible"),
        ({"share": 5}, "unknown field 'share'"),
    ],
)
def test_what_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_verification(FIELDS | change, "config.toml")


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_must_be_there(field: str) -> None:
    with pytest.raises(UserError, match=f"field '{field}' is missing"):
        read_verification({name: value for name, value in FIELDS.items() if name != field}, "config.toml")


@pytest.mark.parametrize("value", [None, [], "open", 7])
def test_what_is_no_object(value: Any) -> None:
    with pytest.raises(UserError, match=r"config\.toml: .*valid dictionary"):
        read_verification(value, "config.toml")


def test_the_shipped_levels() -> None:
    assert [(one.level, one.share_ppm, one.approve_every) for one in (UNCHECKED, OPEN, CLOSED)] == [
        ("unchecked", 0, 1), ("open", 200_000, 6), ("closed", 100_000, 4),
    ]  # fmt: skip
    for level, one in SHIPPED.items():
        assert one.level == level
        assert read_verification(one.model_dump(mode="json"), "shipped") == one == BY_HASH[one.hash()]


def test_recipes_that_may_convict_ship() -> None:
    """A changed recipe is to be reviewed again, and the hash in contracts/audits/levels.py changed."""
    assert set(REVIEWED) <= SHIPPED_RECIPES
    for name in NAMES:
        assert {path.name for path in (FOLDER / name).glob("*.py")} == {"recipe.py", "make_data.py"}


def rule_set(rules: Rules, verification: Verification | None) -> RuleSet:
    return RuleSet(name="x", hash=rules.struct_hash(), rules=rules, verification=verification)


def test_a_market_that_shows_another_json_is_refused() -> None:
    rule_set(RULES, UNCHECKED).check()
    with pytest.raises(UserError, match=f"commit to the verification {UNCHECKED.hash()}.*hash {OPEN.hash()}"):
        rule_set(RULES, OPEN).check()
    with pytest.raises(UserError, match="the JSON that it shows for it is none"):
        rule_set(RULES, None).check()
    with pytest.raises(UserError, match="do not have the hash"):
        rule_set(RULES, UNCHECKED).model_copy(update={"hash": ONE}).check()
    old = rule_set(RULES.model_copy(update={"verification": min(BEFORE)}), None)
    old.check()
    assert (old.level, rule_set(RULES, UNCHECKED).level) == ("unchecked", "unchecked")
