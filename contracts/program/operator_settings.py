"""market.toml, the file of who runs a market: the market's settings and, in sections, an approver's and an arbiter's.

Precedence: explicit arguments, then the environment, then the file. Each program's settings are a class of its own.
"""

from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError
from pydantic_settings import SettingsError

from contracts.errors import UserError
from contracts.settings import FileSettings, home, read_toml

MARKET_FILE = "market.toml"
APPROVER_SECTION = "approver"
ARBITER_SECTION = "arbiter"
SECTIONS = (APPROVER_SECTION, ARBITER_SECTION)

S = TypeVar("S", bound="OperatorSettings")


class OperatorSettings(FileSettings):
    section: ClassVar[str | None] = None  # of market.toml; None: what is in no section

    @classmethod
    def in_file(cls) -> dict[str, Any]:
        return read_market_file(cls.section)


def read_market_file(section: str | None) -> dict[str, Any]:
    """Its section, or with None what is in no section; {} if there is none. Raises UserError."""
    values = read_toml(home() / MARKET_FILE, "correct it or delete it")
    if section is not None:
        found = values.get(section, {})
        return found if isinstance(found, dict) else {}
    return {name: value for name, value in values.items() if name not in SECTIONS or not isinstance(value, dict)}


def load_operator_settings(model: type[S], whose: str, explicit: dict[str, Any]) -> S:
    """Settings from all sources. An explicit argument of None counts as not given. Raises UserError."""
    path, prefix = home() / MARKET_FILE, model.model_config["env_prefix"]
    try:
        return model(**{name: value for name, value in explicit.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = get_close_matches(name, model.model_fields, n=1)
            known = f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(model.model_fields)}"
            raise UserError(f"unknown setting '{name}' of the {whose}", f"look at {path}; {known}") from error
        raise UserError(
            f"the {whose}'s setting '{name}' is wrong: {first['msg']} (got {first['input']!r})",
            f"look at the command's options, {prefix}{str(first['loc'][0]).upper()} and {path}",
        ) from error
    except SettingsError as error:
        raise UserError(f"can't read the settings in the environment: {error}") from error
