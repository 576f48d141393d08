"""provider.toml: what one key offers and how its agent works. `gpumarket provider register` writes it."""

import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.api.bodies import AskResources
from contracts.errors import UserError
from contracts.jobspec import first_problem
from contracts.orders import Rules
from contracts.types import Uint64, Uint96
from worker.environment import Device
from worker.store import provider_folder, write_atomically

OFFER_NAME = "provider.toml"


class Offer(BaseModel):
    """All of provider.toml. Money is text, in the token's smallest unit; times are seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The Ask.
    market_url: str
    price_per_hour: Uint96 = Field(ge=1)
    units_per_hour: Uint64 = Field(ge=1, description="work units (MFLOP) that this machine trains in an hour")
    max_stake: Uint96 = Field(ge=1, description="most that one lease may lock")
    max_active: int = Field(default=1, ge=1, le=16, description="leases at a time")
    max_checkpoints: int = Field(default=65535, ge=1, le=65535, description="per lease")
    ask_seconds: int = Field(default=600, ge=10, description="how long an Ask is good; a new one is made in time")
    rules_name: str
    rules: Rules = Field(description="the terms that this provider agreed to; it signs no others")
    resources: AskResources

    # Training.
    device: Device = "cpu"
    threads: int = Field(default=1, ge=1)
    disk_mb: int = Field(default=20_480, ge=1, description="for a job's files, and for its output")
    hang_seconds: float = Field(default=600, gt=0, description="a recipe that is silent for longer is ended")
    trusted: bool = Field(default=False, description="run recipes without a sandbox: your word that you trust them all")

    # The agent. What is left out follows from the lease's timeout.
    poll_seconds: float = Field(default=2.0, gt=0, description="between looks at chain and market")
    redeem_every: float | None = Field(default=None, gt=0, description="half the timeout, at most")
    patience: float | None = Field(default=None, ge=0, description="with a silent approver; a quarter of the timeout")
    margin: float | None = Field(default=None, ge=0, description="to the deadline; a tenth of the timeout, at most 300")
    release_wait: float | None = Field(
        default=None, ge=0, description="for the approver's last word; a tenth of the timeout, at most 60"
    )
    grace_seconds: float = Field(default=60, ge=0, description="from SIGTERM to the exit")
    finish_seconds: float = Field(
        default=15, ge=0, description="upon SIGTERM, a checkpoint that comes within this is waited for"
    )
    keep_traces_seconds: float | None = Field(
        default=None, ge=0, description="of leases that are over; ten windows and a day"
    )


def offer_path(key: str) -> Path:
    return provider_folder(key) / OFFER_NAME


def read_offer(key: str) -> Offer:
    """Raises UserError if the key isn't registered, or the file is wrong."""
    path = offer_path(key)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return Offer.model_validate(values)
    except FileNotFoundError as error:
        raise UserError(
            f"key '{key}' is not registered as a provider: there is no {path}",
            f"gpumarket provider register --key {key}",
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"can't read {path}: {error}") from error
    except ValidationError as error:
        raise first_problem(error, Offer.model_fields, str(path)) from error


def write_offer(key: str, offer: Offer) -> Path:
    path = offer_path(key)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, to_toml(offer).encode())
    return path


def to_toml(offer: Offer) -> str:
    """All settings with what they mean; those that are left to the agent as comments."""
    tables = {"rules", "resources"}
    values = offer.model_dump(mode="json")
    lines = ["# What this machine offers on the market. Changed here, it holds from the agent's next start."]
    for name, field in Offer.model_fields.items():
        if name not in tables:
            lines.append(_line(name, values[name], field.description))
    for name in sorted(tables):
        lines += ["", f"[{name}]", *(_line(key, value, None) for key, value in values[name].items())]
    return "\n".join(lines) + "\n"


def _line(name: str, value: Any, description: str | None) -> str:
    comment = f"  # {description}" if description else ""
    # json writes strings, numbers and lists of them as TOML does.
    return f"# {name} ={comment}" if value is None else f"{name} = {json.dumps(value)}{comment}"
