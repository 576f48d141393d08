"""Settings of an approver: the section [approver] of market.toml. Which chain and market is in config.toml."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from contracts.program.operator_settings import APPROVER_SECTION, OperatorSettings, load_operator_settings
from contracts.settings import home
from contracts.types import Uint96


class ApproverSettings(OperatorSettings):
    """Make it with `load_approver_settings`."""

    section = APPROVER_SECTION

    model_config = SettingsConfigDict(
        env_prefix="GPUMARKET_APPROVER_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    keys: tuple[str, ...] = Field(
        (), description="Names of the keys to sign with; none: `key` of config.toml, or the only one there is"
    )
    poll_seconds: float = Field(1.0, ge=0.05, description="Time between two looks at the market")
    checks_at_once: int = Field(
        4,
        ge=1,
        le=64,
        description="Leases that are looked at beside each other, each in a process of its own",
    )
    check_seconds: float = Field(
        300.0, gt=0, description="Most time that the check of one checkpoint may take, its download not counted in"
    )
    replays_here: bool = Field(
        True,
        description="Replay drawn checkpoints on this machine first, if training is installed and it has the class",
    )
    nobody_seconds: float = Field(
        120.0, ge=0, description="Time after which a drawn checkpoint goes unaudited, if nobody who fits is on offer"
    )
    replay_price_most: Uint96 | None = Field(
        None,
        description="The most that a replay may cost, in the token's smallest unit, beside the fee; none: no bound",
    )
    memory_dir: Path = Field(
        default_factory=lambda: home() / "approver", description="Folder of what was signed, one below it for each key"
    )
    metrics_host: str = Field("127.0.0.1", description="Address on which metrics are told")
    metrics_port: int | None = Field(None, ge=1, le=65535, description="And the port; none: they are not told")
    log_format: Literal["console", "json"] = Field("console", description="For eyes, or one JSON object a line")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged")


def load_approver_settings(**explicit: Any) -> ApproverSettings:
    """Settings from all sources. An explicit argument of None counts as not given. Raises UserError."""
    return load_operator_settings(ApproverSettings, "approver", explicit)
