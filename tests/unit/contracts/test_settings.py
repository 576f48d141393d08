"""Where settings come from, and what is said when they are wrong."""

from pathlib import Path

import pytest

from contracts.audits.levels import OPEN, UNCHECKED
from contracts.errors import UserError
from contracts.orders import Rules
from contracts.settings import Settings, home, load_settings, write_config

ESCROW = "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"
RULES = Rules(
    arbiter=ESCROW,
    arbiter_fee=2**80,
    arbiter_timeout=30,
    checkpoint_timeout=20,
    window=4,
    verification="0x" + "ab" * 32,
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    return tmp_path / "config.toml"


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUMARKET_HOME", raising=False)
    assert home() == Path.home() / ".gpumarket"
    monkeypatch.setenv("GPUMARKET_HOME", "~/elsewhere")
    assert home() == Path.home() / "elsewhere"


def test_what_is_written_is_read_back(config: Path) -> None:
    settings = Settings(chain_id=31337, escrow=ESCROW, deploy_block=3, market_url='http://"x"', rules={"a-b": RULES})
    write_config(config, settings, "for a test")
    assert config.read_text().startswith("# for a test\n")
    assert load_settings().model_dump() == settings.model_dump()


def test_arguments_before_environment_before_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('chain_id = 1\nrpc_url = "http://file"\nmarket_url = "http://file"\n')
    monkeypatch.setenv("GPUMARKET_RPC_URL", "http://environment")
    monkeypatch.setenv("GPUMARKET_CHAIN_ID", "2")
    settings = load_settings(chain_id=3, market_url=None)
    assert (settings.chain_id, settings.rpc_url, settings.market_url) == (3, "http://environment", "http://file")


def test_settings_made_directly_come_from_nowhere_else(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("chain_id = 1\n")
    monkeypatch.setenv("GPUMARKET_DEPLOY_BLOCK", "2")
    assert Settings() == Settings(chain_id=None, deploy_block=0)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("chainid = 1", "unknown setting 'chainid'", "did you mean 'chain_id'?"),
        ("zzz = 1", "unknown setting 'zzz'", "known are: rpc_url, chain_id"),
        ("chain_id = ", "is not valid TOML", "correct it"),
        ('chain_id = "x"', "the setting 'chain_id' is wrong: .*got 'x'", "GPUMARKET_CHAIN_ID"),
        ('escrow = "0x12"', "the setting 'escrow' is wrong: .*expected an address", "GPUMARKET_ESCROW"),
        ("[rules.a]\nwindow = 4", r"the setting 'rules\.a\.arbiter' is wrong: Field required", "GPUMARKET_RULES"),
    ],
)
def test_a_wrong_file(config: Path, text: str, message: str, hint: str) -> None:
    config.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_settings()
    assert hint in (caught.value.hint or "")


def test_a_value_that_is_needed(config: Path) -> None:
    with pytest.raises(UserError, match="the setting 'escrow' is missing") as caught:
        load_settings().require("escrow")
    assert caught.value.hint is not None
    assert f"set GPUMARKET_ESCROW or `escrow` in {config}" in caught.value.hint
    assert "gpumarket devnet" in caught.value.hint


def test_rule_sets(config: Path) -> None:
    settings = load_settings(rules={"unchecked": RULES})
    assert settings.rule_set("unchecked") == RULES
    with pytest.raises(UserError, match="no rule-set is named 'x'") as caught:
        settings.rule_set("x")
    assert caught.value.hint == "there are: unchecked"
    with pytest.raises(UserError, match="the setting 'rules' is missing"):
        load_settings().rule_set("unchecked")


OWN = OPEN.model_copy(update={"share_ppm": 300_000})
FIELDS = "\n".join(
    f'{name} = "{value}"' for name, value in RULES.model_dump(mode="json").items() if name != "verification"
)


def test_a_level_stands_for_its_hash(config: Path) -> None:
    config.write_text(f'[rules.a]\n{FIELDS}\nlevel = "unchecked"\n')
    settings = load_settings()
    assert settings.rules["a"].verification == UNCHECKED.hash()
    assert settings.verification_of("a") == UNCHECKED
    assert load_settings(rules={"b": RULES}).verification_of("b") is None  # nobody knows what hashes to that


def test_a_json_of_ones_own_is_kept(config: Path) -> None:
    rules = {"own": RULES.model_copy(update={"verification": OWN.hash()})}
    settings = Settings(rules=rules, verifications={"own": OWN})
    write_config(config, settings, "for a test")
    assert load_settings().model_dump() == settings.model_dump()
    assert load_settings().verification_of("own") == OWN


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            f'[rules.a]\n{FIELDS}\nlevel = "audited"\n',
            r"rules\.a has the level 'audited'; there are: open, closed, unch",
        ),
        (f'[rules.a]\n{FIELDS}\nlevel = "open"\nverification = "0x00"\n', "a level and a verification; leave one out"),
        ("[verifications]\nb = '{\"version\": 1}'\n", r"verifications\.b\.level' is wrong: Field required"),
        ("[verifications]\nb = '{'\n", r"verifications\.b' is wrong"),
    ],
)
def test_a_wrong_level(config: Path, text: str, problem: str) -> None:
    config.write_text(text)
    with pytest.raises(UserError, match=problem):
        load_settings()


def test_a_json_that_is_not_what_the_rules_commit_to(config: Path) -> None:
    with pytest.raises(UserError, match=f"hashes to {OWN.hash()}, and its rules have the verification 0xabab"):
        load_settings(rules={"own": RULES}, verifications={"own": OWN})
    with pytest.raises(UserError, match="a JSON for 'other', and no rule-set of that name"):
        load_settings(rules={"own": RULES}, verifications={"other": OWN})
