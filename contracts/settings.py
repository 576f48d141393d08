"""Settings of one installation: which chain, which contracts, which market.

Precedence: explicit arguments, then GPUMARKET_* in the environment, then `config.toml` in `home()`, which
`gpumarket devnet` writes for a local chain.
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from contracts.audits.levels import BY_HASH, SHIPPED
from contracts.audits.verification import Verification
from contracts.errors import UserError
from contracts.finality import KEPT_BLOCKS, Finality
from contracts.orders import Rules
from contracts.strict_json import read_json, write_json
from contracts.types import Address, Uint256

CONFIG_NAME = "config.toml"

# What to do about a setting that a command needs and nobody gave.
_HOW_TO_GET = {
    "market_url": "ask the market's operator for its address; on a devnet, `gpumarket market serve` is one",
    "approver": "name the address that signs approvals for you, or give a Bid without an approver",
    "rules": "on a devnet, `gpumarket devnet` writes rule-sets; elsewhere, take them from your market",
}
_FROM_DEPLOYMENT = "run `gpumarket devnet` for a local chain, or take it from /v1/info of a market that you trust"


def home() -> Path:
    """The directory of keys, intents and config.toml: $GPUMARKET_HOME, else ~/.gpumarket. It may not exist yet."""
    given = os.environ.get("GPUMARKET_HOME")
    return Path(given).expanduser() if given else Path.home() / ".gpumarket"


def _json_text(value: Any) -> Any:
    return read_json(value) if isinstance(value, str) else value


class Settings(BaseModel):
    """All settings. `load_settings` makes it from all sources; what is None was not given: ask with `require`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rpc_url: str = Field(default="http://127.0.0.1:8545", description="JSON-RPC of an Ethereum node")
    chain_id: int | None = Field(default=None, description="Chain id that the node must have")
    escrow: Address | None = Field(default=None, description="Address of the escrow")
    token: Address | None = Field(default=None, description="Address of the token that the escrow holds")
    epoch_log: Address | None = Field(default=None, description="Address of the log of order-set roots")
    arbiter: Address | None = Field(default=None, description="Address of the arbiter that orders name by default")
    deploy_block: int = Field(default=0, ge=0, description="Block to follow the escrow's events from")
    market_url: str | None = Field(default=None, description="Base URL of a market")
    approver: Address | None = Field(default=None, description="Who approves checkpoints for this client")
    key: str | None = Field(default=None, description="Name of the key to use when a command names none")
    confirmations_base: int = Field(
        default=2, ge=0, description="Blocks on top of one before it counts, whatever moved in it"
    )
    confirmations_per: Uint256 = Field(
        default=10_000_000, description="So much value (smallest units) wants one block more; 0: value doesn't matter"
    )
    confirmations_max: int = Field(default=64, ge=0, le=KEPT_BLOCKS, description="No value wants more blocks than this")
    max_fee_gwei: int = Field(default=500, gt=0, description="The most that a transaction may pay per gas, in gwei")
    gas_alarm_transactions: int = Field(
        default=50, ge=0, description="Warn when an account's gas money is left for fewer transactions than this"
    )
    rules: dict[str, Rules] = Field(
        default_factory=dict,
        description="Rule-sets that orders can name; `level` of a shipped level may stand for `verification`",
    )
    verifications: dict[str, Annotated[Verification, BeforeValidator(_json_text)]] = Field(
        default_factory=dict,
        description="By rule-set, the JSON whose hash is its `verification`, as a text; of one that doesn't ship",
    )

    @field_validator("rules", mode="before")
    @classmethod
    def _levels_are_hashes(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: _with_hash(name, rules) for name, rules in given.items()}

    @field_validator("verifications")
    @classmethod
    def _are_those_of_the_rules(cls, given: dict[str, Verification], info: ValidationInfo) -> dict[str, Verification]:
        for name, verification in given.items():
            rules = info.data.get("rules", {}).get(name)
            if rules is None:
                raise ValueError(f"there is a JSON for {name!r}, and no rule-set of that name: name both alike")
            if verification.hash() != rules.verification:
                raise ValueError(
                    f"the JSON of {name!r} hashes to {verification.hash()}, and its rules have the verification "
                    f"{rules.verification}: correct one of them"
                )
        return given

    def verification_of(self, name: str) -> Verification | None:
        """The JSON that a rule-set commits to; None if it is not known."""
        return self.verifications.get(name) or BY_HASH.get(self.rule_set(name).verification)

    @property
    def finality(self) -> Finality:
        return Finality(base=self.confirmations_base, per=self.confirmations_per, max=self.confirmations_max)

    @property
    def max_fee(self) -> int:
        """`max_fee_gwei` in wei."""
        return self.max_fee_gwei * 10**9

    def require(self, name: str) -> Any:
        """The value of a setting that must be there; UserError that says how to get it otherwise."""
        value = getattr(self, name)
        if value is None or value == {}:
            raise UserError(
                f"the setting '{name}' is missing ({Settings.model_fields[name].description})",
                f"set GPUMARKET_{name.upper()} or `{name}` in {home() / CONFIG_NAME}: "
                f"{_HOW_TO_GET.get(name, _FROM_DEPLOYMENT)}",
            )
        return value

    def rule_set(self, name: str) -> Rules:
        """A rule-set by name; UserError with the names there are otherwise."""
        known = self.require("rules")
        if name not in known:
            raise UserError(f"no rule-set is named '{name}'", f"there are: {', '.join(sorted(known))}")
        return known[name]


def _with_hash(name: str, rules: Any) -> Any:
    """A rule-set whose `level` has become its `verification`."""
    if not isinstance(rules, dict) or "level" not in rules:
        return rules
    level = rules["level"]
    if "verification" in rules:
        raise ValueError(f"rules.{name} has a level and a verification; leave one out")
    if level not in SHIPPED:
        raise ValueError(f"rules.{name} has the level {level!r}; there are: {', '.join(SHIPPED)}")
    return {key: value for key, value in rules.items() if key != "level"} | {"verification": SHIPPED[level].hash()}


class FileSettings(BaseSettings):
    """Settings whose sources are explicit arguments, then the environment, then a file."""

    @classmethod
    def in_file(cls) -> dict[str, Any]:
        """What the file says. Raises UserError."""
        raise NotImplementedError

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _File(settings_cls, cls.in_file)


class _File(PydanticBaseSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], read: Callable[[], dict[str, Any]]) -> None:
        super().__init__(settings_cls)
        self._read = read

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # unused: __call__ gives all at once

    def __call__(self) -> dict[str, Any]:
        return self._read()


class _AllSources(Settings, FileSettings):
    model_config = SettingsConfigDict(env_prefix="GPUMARKET_", env_ignore_empty=True)

    @classmethod
    def in_file(cls) -> dict[str, Any]:
        return read_config(home() / CONFIG_NAME)


def read_toml(path: Path, hint: str) -> dict[str, Any]:
    """{} if there is no such file. Raises UserError; `hint`: what to do about one that is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=str)  # an amount is what was written
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}", hint) from error
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a config file; {} if there is none. UserError if it isn't TOML or has a key nobody knows."""
    values = read_toml(path, "correct it, or delete it and write it anew")
    for key in values:
        if key not in Settings.model_fields:
            near = get_close_matches(key, Settings.model_fields, n=1)
            raise UserError(
                f"unknown setting '{key}' in {path}",
                f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(Settings.model_fields)}",
            )
    return values


def load_settings(**explicit: Any) -> Settings:
    """Settings from all sources. An explicit argument of None counts as not given. Raises UserError."""
    try:
        return _AllSources(**{name: value for name, value in explicit.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"the setting '{name}' is wrong: {first['msg']} (got {first['input']!r})",
            f"look at the command's options, GPUMARKET_{name.split('.')[0].upper()} and {home() / CONFIG_NAME}",
        ) from error
    except SettingsError as error:
        raise UserError(f"can't read the settings in the environment: {error}") from error


def write_config(path: Path, settings: Settings, comment: str) -> None:
    """Writes the settings that are not None as TOML, atomically; `comment` becomes the first line."""
    values = settings.model_dump(mode="json", exclude_none=True)
    rules, verifications = values.pop("rules"), settings.verifications
    del values["verifications"]
    lines = [f"# {comment}", *_assignments(values)]
    if verifications:
        texts = {name: write_json(one.model_dump(mode="json")) for name, one in verifications.items()}
        lines += ["", "[verifications]", *_assignments(texts)]
    for name, fields in rules.items():
        lines += ["", f"[rules.{name}]", *_assignments(fields)]
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")
    scratch.replace(path)


def _assignments(values: Mapping[str, Any]) -> list[str]:
    # json writes strings and numbers as TOML does.
    return [f"{name} = {write_json(value)}" for name, value in values.items()]
