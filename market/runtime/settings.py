"""Settings of a market. Which chain, contracts and rule-sets it serves is in contracts.settings (config.toml).

Precedence: explicit arguments, then GPUMARKET_MARKET_* in the environment, then `market.toml` in the home.
"""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from contracts.program.operator_settings import OperatorSettings, load_operator_settings
from contracts.settings import home
from contracts.types import Address, Uint64, Uint96

KEPT_ANSWERS = timedelta(hours=24)  # to requests with an Idempotency-Key


class MarketSettings(OperatorSettings):
    """All settings of a market. Make it with `load_market_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="GPUMARKET_MARKET_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8600, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    database_url: str = Field(
        default_factory=lambda: f"sqlite:///{home() / 'market' / 'market.sqlite3'}",
        description="SQLite, or postgresql+psycopg://user:password@host/name; default: an SQLite file in the home",
    )
    blob_dir: Path = Field(
        default_factory=lambda: home() / "market" / "blobs", description="Folder of jobs' files and checkpoints"
    )
    max_blob_bytes: int = Field(4 << 30, ge=1, description="Largest blob that is taken")
    key: str = Field("market", description="Name of the matcher's key, which opens the leases and earns the fee")
    fee: Uint64 = Field(0, description="Least fee per accepted checkpoint, in the token's smallest unit")
    epoch_seconds: float = Field(5.0, gt=0, description="Time from one clearing to the next")
    audit_opening_seconds: float = Field(
        2.0, ge=0, description="Until a lease that was matched is opened and seen: what audits reckon with"
    )
    audit_transfer_seconds: float = Field(
        3.0, ge=0, description="Time to fetch a job's files and a state, and to send one: what audits reckon with"
    )
    gas_token_price: Decimal | None = Field(
        None, gt=0, description="Tokens that one coin of the chain is worth, to warn where a replay's gas costs much"
    )
    gas_per_hour: int = Field(
        30_000_000,
        ge=100_000,
        description="Gas that epochs and openings may use in an hour before epochs become rare (one a minute)",
    )
    poll_seconds: float = Field(1.0, gt=0, description="Time between two looks for a new block")
    ready_seconds: float = Field(
        60, gt=0, description="/readyz says no when the chain could not be followed for so long"
    )
    log_format: Literal["console", "json"] = Field("console", description="For eyes, or one JSON object a line")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged; debug shows every request"
    )
    metrics_public: bool = Field(False, description="Answer /metrics to others than this machine, too")
    quota_bytes: int = Field(
        50 << 30, ge=0, description="Most bytes that one account may store; checkpoints of its leases are on top"
    )
    max_open_asks: int = Field(
        200, ge=1, description="Most Asks that one account may have in force; of Bids its nonces allow 112"
    )
    requests_per_minute_account: int = Field(
        6000, ge=1, description="Most requests a minute of an account with a deposit or a live lease, by its tokens"
    )
    requests_per_minute_address: int = Field(
        6000, ge=1, description="Most requests a minute of everybody else behind one IP address"
    )
    max_connections: int = Field(800, ge=1, description="Most connections to the API at once")
    max_connections_address: int = Field(
        200, ge=1, description="Most of them from one IP address; behind a proxy all have the proxy's"
    )
    cors_origins: tuple[str, ...] = Field(
        (), max_length=100, description='Web pages that may use the API from a browser, as origins; `["*"]`: all'
    )
    keep_unused_hours: float = Field(24, ge=0, description="Time that an upload is kept which no order or claim names")
    keep_days: float = Field(
        30, ge=0, description="Time that the files of a job are kept, and its past providers may read, after its end"
    )
    keep_checkpoint_days: float = Field(7, ge=0, description="Time that a job's checkpoints are kept after its end")
    keep_result_days: float = Field(30, ge=0, description="Time that a job's last accepted checkpoint is kept")
    collect_seconds: float = Field(3600, gt=0, description="Time between two looks for blobs that nobody needs")
    recommended_approver: Address | None = Field(
        None, description="Approver that clients are recommended; default: the one in config.toml"
    )
    replay_reserve: Uint96 | None = Field(
        None,
        description="What the market's own approver has free in the escrow for replays at least, in the token's "
        "smallest unit: filled up from the matcher's tokens, its fees among them; left out: nothing is",
    )
    draining: bool = Field(
        False, description="Take no new orders and open no leases; go on with those that live, until none does"
    )
    successor: str | None = Field(
        None,
        pattern=r"^https?://[!-~]+$",
        max_length=300,
        description="Address of the market that takes this one's place, which is told to who brings an order",
    )


def load_market_settings(**explicit: Any) -> MarketSettings:
    """Settings from all sources. An explicit argument of None counts as not given. Raises UserError."""
    return load_operator_settings(MarketSettings, "market", explicit)
