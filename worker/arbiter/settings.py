"""Settings of an arbiter: the section [arbiter] of market.toml. Which chain and market is in config.toml."""

from typing import Any, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from contracts.audits.ruling import LEAST_RUNS
from contracts.program.operator_settings import ARBITER_SECTION, OperatorSettings, load_operator_settings
from contracts.types import Address
from worker.driver.nvml import GpuName
from worker.settings import DISK_MB


class ArbiterSettings(OperatorSettings):
    """Make it with `load_arbiter_settings`."""

    section = ARBITER_SECTION

    model_config = SettingsConfigDict(
        env_prefix="GPUMARKET_ARBITER_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    key: str | None = Field(
        None, description="Name of the operator's key; none: `key` of config.toml, or the only one there is"
    )
    contract: Address | None = Field(None, description="The arbiter's contract; none: `arbiter` of config.toml")
    poll_seconds: float = Field(5.0, ge=0.05, description="Time between two looks at the chain")
    runs: int = Field(LEAST_RUNS, ge=LEAST_RUNS, le=16, description="Own runs of a questioned stretch, each varied")
    sandbox: Literal["bubblewrap", "podman"] = Field("bubblewrap", description="What recipes run in")
    image: str | None = Field(None, description="For podman; none: this machine's own Python")
    gpus: tuple[GpuName, ...] = Field((), description="GPUs to train on, by index or UUID; none: the first ones")
    disk_mb: int = Field(DISK_MB, ge=1, description="What a job may take on disk")
    hosts: tuple[str, ...] = Field((), description="Hosts that files of jobs may be fetched from")
    metrics_host: str = Field("127.0.0.1", description="Address on which metrics are told")
    metrics_port: int | None = Field(None, ge=1, le=65535, description="And the port; none: they are not told")
    log_format: Literal["console", "json"] = Field("console", description="For eyes, or one JSON object a line")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged")


def load_arbiter_settings(**explicit: Any) -> ArbiterSettings:
    """Settings from all sources. An explicit argument of None counts as not given. Raises UserError."""
    return load_operator_settings(ArbiterSettings, "arbiter", explicit)
