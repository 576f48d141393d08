"""provider.toml: what one key offers and how its agent works. `gpumarket provider register` writes it."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from contracts.api.bodies import AskResources
from contracts.errors import UserError
from contracts.job.provider_wants import Wants
from contracts.job.spec import first_problem
from contracts.orders import Rules
from contracts.strict_json import write_json
from contracts.types import Address, Uint64, Uint96
from worker.driver.nvml import GpuName
from worker.files import provider_folder, write_atomically
from worker.pauses import Hours, parse_hours
from worker.training.environment import Device

SETTINGS_FILE = "provider.toml"
DISK_MB = 20_480  # for a job, where nobody says otherwise
GpuUuid = Annotated[str, Field(pattern=r"^(GPU|MIG)-[\w/-]{1,100}$")]  # as `nvidia-smi -L` shows them
PAY_OVER_GAS = 2.0  # where nothing is said: at half of what a lease pays, gas is most of what it costs


class OwnerRules(BaseModel):
    """[owner]: when there is no training, because the machine's owner needs it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pause: str = Field(default="", description='weekly hours, local time: "mon-fri 09:00-18:00, sat 22:00-02:00"')
    others_cpu: float | None = Field(
        default=None, gt=0, le=1, description="pause while other programs use more than this share of the CPU"
    )
    others_gpu: bool = Field(default=False, description="pause while another program computes on these GPUs")
    typed_seconds: float | None = Field(
        default=None, gt=0, description="pause while somebody types at a terminal of this machine, and so long after"
    )
    quiet_seconds: float = Field(default=120, ge=0, description="for which nobody else must be busy before it goes on")

    @field_validator("pause")
    @classmethod
    def _pause(cls, value: str) -> str:
        parse_hours(value)
        return value

    @property
    def hours(self) -> tuple[Hours, ...]:
        return parse_hours(self.pause)


class MoneyRules(BaseModel):
    """[money]: what gas may cost, and where earnings go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens_per_eth: str | None = Field(default=None, description='what 1 ETH is worth in whole tokens, such as "2500"')
    pay_over_gas: float | None = Field(
        default=None,
        ge=0,
        description="a lease must pay this many times its expected gas; 2 where tokens_per_eth is known, else 0: any",
    )
    sweep_above: Uint96 | None = Field(default=None, ge=1, description="what may lie at this key; the rest is sent on")
    sweep_to: Address | None = Field(default=None, description="the cold address that gets it")
    sweep_seconds: float = Field(default=3600, ge=1, description="between two looks of the running agent")

    @field_validator("tokens_per_eth", mode="before")
    @classmethod
    def _without_quotes(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value

    @model_validator(mode="after")
    def _whole(self) -> "MoneyRules":
        if self.pay_over_gas and not self.tokens_per_eth:
            raise ValueError("pay_over_gas takes tokens_per_eth: gas is paid in ETH, leases in tokens")
        if self.tokens_per_eth is not None and not re.fullmatch(r"\d{1,12}(\.\d{1,18})?", self.tokens_per_eth):
            raise ValueError(f"tokens_per_eth is {self.tokens_per_eth!r}, not a decimal such as 2500")
        if (self.sweep_above is None) != (self.sweep_to is None):
            raise ValueError("sweep_above and sweep_to go together: give both, or none")
        return self

    @property
    def least_over_gas(self) -> float:
        """`pay_over_gas`, or what it comes to where it is left out."""
        usual = PAY_OVER_GAS if self.tokens_per_eth else 0.0
        return usual if self.pay_over_gas is None else self.pay_over_gas


class ProviderSettings(BaseModel):
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
    wants: Wants = Field(default_factory=Wants, description="leases to take; the Ask says so")

    # Training.
    device: Device = "cpu"
    gpus: tuple[Annotated[int, Field(ge=0)] | GpuUuid, ...] = Field(
        default=(), description="UUIDs (or NVML indices) of the GPUs that this key sells together"
    )
    threads: int = Field(default=1, ge=1)
    disk_mb: int = Field(default=DISK_MB, ge=1, description="for a job's files, and for its output")
    all_disk_mb: int | None = Field(
        default=None, ge=1, description="for all leases of this key; no new one while the next might not fit"
    )
    upload_bytes: int | None = Field(default=None, ge=1, description="most bytes a second to the market")
    download_bytes: int | None = Field(default=None, ge=1, description="most bytes a second from the market")
    hang_seconds: float = Field(default=600, gt=0, description="a recipe that is silent for longer is ended")
    max_overrun: float = Field(
        default=2.0, ge=1, description="times the signed work that steps may take here; a lease beyond it is given back"
    )
    rehearsal_share: float = Field(
        default=0.1, ge=0, le=1, description="of a checkpoint's time, to try a lease's first steps twice; 0: don't"
    )
    sandbox: Literal["bubblewrap", "podman"] = Field(
        default="bubblewrap", description="or podman; what recipes of strangers run in"
    )
    image: str | None = Field(default=None, description="for podman; this machine's own Python if left out")
    trusted: bool = Field(default=False, description="run recipes without a sandbox: your word that you trust them all")

    # The agent. What is left out follows from the lease's timeout.
    poll_seconds: float = Field(default=2.0, gt=0, description="between looks at chain and market")
    redeem_every: float | None = Field(default=None, gt=0, description="half the timeout, at most")
    patience: float | None = Field(default=None, ge=0, description="with a silent approver; a quarter of the timeout")
    margin: float | None = Field(default=None, ge=0, description="to the deadline; a tenth of the timeout, at most 300")
    release_wait: float | None = Field(
        default=None, ge=0, description="for the approver's last word; a tenth of the timeout, at most 60"
    )
    commitment_wait: float | None = Field(
        default=None,
        ge=0,
        description="under audited rules, for the approver's commitment to its draws; a third of the timeout",
    )
    grace_seconds: float = Field(default=60, ge=0, description="from SIGTERM to the exit")
    finish_seconds: float = Field(
        default=15, ge=0, description="upon SIGTERM, a checkpoint that comes within this is waited for"
    )
    keep_traces_seconds: float | None = Field(
        default=None, ge=0, description="of leases that are over; ten windows and a day"
    )

    owner: OwnerRules = Field(default_factory=OwnerRules, description="when this machine is needed for something else")
    money: MoneyRules = Field(default_factory=MoneyRules, description="what gas may cost, and where earnings go")

    def sold(self, min_pay: int = 0) -> AskResources:
        """What the Ask signs, with the leases that are wanted; they must pay `min_pay` at least."""
        least = max(min_pay, self.wants.min_pay)
        changes: dict[str, Any] = {"wants": self.wants.model_copy(update={"min_pay": least})}
        if self.sandbox == "podman":
            changes["sandbox"] = "podman"
        return self.resources.model_copy(update=changes)

    @property
    def gpu_names(self) -> tuple[GpuName, ...]:
        """Of the GPUs that it sells. Who names none sells the first ones."""
        return self.gpus or tuple(range(self.resources.gpus))

    def as_before(self, former: "ProviderSettings") -> "ProviderSettings":
        """These settings, with what their owner had set in the former ones."""
        measured = {"market_url", "price_per_hour", "units_per_hour", "max_stake", "rules_name", "rules", "resources",
                    "device", "gpus", "threads"}  # fmt: skip
        return former.model_copy(update={name: getattr(self, name) for name in measured})


# In the order of the file. What is wanted has a table of its own: `resources` is what `register` found.
TABLES: dict[str, type[BaseModel]] = {
    "rules": Rules,
    "resources": AskResources,
    "wants": Wants,
    "owner": OwnerRules,
    "money": MoneyRules,
}


def provider_settings_path(key: str) -> Path:
    return provider_folder(key) / SETTINGS_FILE


def read_provider_settings(key: str) -> ProviderSettings:
    """Raises UserError if the key isn't registered, or the file is wrong."""
    path = provider_settings_path(key)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=str)  # an amount is what was written
        return ProviderSettings.model_validate(values)
    except FileNotFoundError as error:
        raise UserError(
            f"key '{key}' is not registered as a provider: there is no {path}",
            f"gpumarket provider register --key {key}",
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"can't read {path}: {error}") from error
    except ValidationError as error:
        raise first_problem(error, _known(error), str(path)) from error


def write_provider_settings(key: str, settings: ProviderSettings) -> Path:
    path = provider_settings_path(key)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, to_toml(settings).encode())
    return path


def to_toml(settings: ProviderSettings) -> str:
    """All settings with what they mean; those that are left to the agent as comments."""
    values = settings.model_dump(mode="json")
    lines = ["# What this machine offers on the market. Changed here, it holds from the agent's next start."]
    for name, field in ProviderSettings.model_fields.items():
        if name not in TABLES:
            lines.append(_line(name, values[name], field.description))
    for name, model in TABLES.items():
        table, fields = values[name], model.model_fields
        meaning = ProviderSettings.model_fields[name].description
        lines += ["", f"[{name}]" + (f"  # {meaning}" if meaning else "")]
        shown = table | {key: fields[key].get_default() for key in fields if name == "wants" and key not in table}
        lines += [_line(key, value, fields[key].description) for key, value in shown.items() if key not in TABLES]
    return "\n".join(lines) + "\n"


def _line(name: str, value: Any, description: str | None) -> str:
    comment = f"  # {description}" if description else ""
    # json writes strings, numbers and lists of them as TOML does.
    return f"# {name} ={comment}" if value is None else f"{name} = {write_json(value)}{comment}"


def _known(error: ValidationError) -> Mapping[str, Any]:
    """The settings of the table that the first problem is in."""
    table = TABLES.get(str(error.errors()[0]["loc"][0])) if error.errors()[0]["loc"] else None
    return (table or ProviderSettings).model_fields
