"""JobSpec: what a job is, byte for byte. docs/protocol.md section 1. contracts/job/file.py reads job.yaml into one."""

import posixpath
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlsplit

import rfc8785
from eth_utils.crypto import keccak
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from contracts.errors import UserError
from contracts.job.early_stop import Stop
from contracts.strict_json import read_json
from contracts.types import Address, Bytes32, Finite, TrueOrFalse, WholeNumber, to_hex

MAX_FILES = 1000
MAX_NAMES = 50  # of devices, regions, hosts that one order lists
MAX_PATH = 255  # bytes
MAX_CONFIG = 65_536  # bytes of its canonical JSON, in what is posted
MAX_NUMERICS = 16_384
MAX_METRICS, MAX_METRIC_NAME = 32, 64  # of a checkpoint; characters
MAX_CHECKPOINTS = 65535
MAX_THREADS = 4096  # that training takes
MAX_TIER = 3  # of a provider's reliability: contracts/chain/reliability.py
MAX_DEPTH = 64  # of a config: serializers of JSON stop somewhere, and in a body it is inside other objects
MOST_SAID = 200  # characters of a value in an error
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_RECIPE = re.compile(r"^(?P<path>[^:]+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)$")


def _is_none(value: Any) -> bool:
    return value is None


def _is_false(value: Any) -> bool:
    return value is False


def _is_nothing(value: Any) -> bool:
    return not value


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"{value!r} is not a list, such as [{value}]")
    return value


def check_path(path: str) -> str:
    """A relative, normalised, `/`-separated path inside the job; ValueError otherwise."""
    bad = (
        not path
        or path.startswith("/")
        or "\\" in path
        or "\0" in path
        or posixpath.normpath(path) != path
        or path.split("/")[0] in ("..", ".")
        or len(path.encode()) > MAX_PATH
    )
    if bad:
        raise ValueError(f"path {path!r} is not a plain relative path inside the job (no '..', no leading '/')")
    return path


def parse_time(text: str) -> datetime:
    """RFC 3339 UTC, written with `Z`."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", text):
        raise ValueError(f"time {text!r} is not RFC 3339 in UTC, such as 2030-01-31T12:00:00Z")
    return datetime.fromisoformat(text)


def as_text_time(value: Any) -> Any:
    """YAML reads an unquoted time as a datetime; take it back to text."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return value


def check_json(value: dict[str, Any], what: str, most: int | None = None) -> dict[str, Any]:
    """ValueError unless it can be written as canonical JSON, of `most` bytes, nested no deeper than readers follow."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [item for items in inner for item in items if isinstance(item, dict | list | tuple)]
    if level:
        raise ValueError(f"{what} is nested more than {MAX_DEPTH} deep")
    try:
        size = len(rfc8785.dumps(value))
    except Exception as error:
        raise ValueError(f"{what} can't be written as canonical JSON: {error}") from error
    if most is not None and size > most:
        raise ValueError(f"{what} has {size} bytes as JSON; {most} are the most")
    return value


def check_posted(spec: "JobSpec") -> "JobSpec":
    """ValueError if no market takes the job: its config belongs into a file. Older jobs may have such a config."""
    check_json(spec.config, "config", MAX_CONFIG)
    return spec


JobPath = Annotated[str, AfterValidator(check_path), WithJsonSchema({"type": "string", "maxLength": MAX_PATH})]
Region = Annotated[str, Field(min_length=1, max_length=64)]  # as a provider names it
DeviceName = Annotated[str, Field(max_length=200)]
Environment = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]{0,63}$")]
VramMb = Annotated[WholeNumber, Field(ge=0, le=10_000_000)]
MemoryMb = Annotated[WholeNumber, Field(ge=0, le=100_000_000)]


Providers = Annotated[tuple[Address, ...], BeforeValidator(_listed)]


def check_url(url: str) -> str:
    """An address that agents may fetch a file from: https, or http from this very machine. ValueError otherwise."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"url {url!r} is not a web address: {error}") from error
    if not host or not url.isascii() or any(char.isspace() for char in url):
        raise ValueError(f"url {url!r} is not a web address, such as https://example.org/data.bin")
    if parts.username or parts.password or parts.fragment:
        raise ValueError(f"url {url!r} has a user, a password or a fragment in it; files must be open to all agents")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        raise ValueError(f"url {url!r} is not https")
    return url


class FileRef(BaseModel):
    """One file of a job, by content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Bytes32
    size: WholeNumber = Field(ge=0, lt=1 << 53)
    # Where agents fetch it; without, the market has it. Left out of the JSON then, as all optional fields are.
    url: Annotated[str, Field(max_length=2000), AfterValidator(check_url)] | None = Field(
        default=None, exclude_if=_is_none
    )

    @property
    def host(self) -> str | None:
        """The host that it is fetched from, in lower case."""
        return urlsplit(self.url).hostname if self.url else None

    def same_bytes(self, other: "FileRef") -> bool:
        return (self.sha256, self.size) == (other.sha256, other.size)


MetricsOfCheckpoint = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=MAX_METRIC_NAME)], Finite], Field(max_length=MAX_METRICS)
]
Numerics = Annotated[
    dict[str, Any],
    AfterValidator(partial(check_json, what="numerics", most=MAX_NUMERICS)),
    WithJsonSchema({"type": "object", "description": f"at most {MAX_NUMERICS} bytes of JSON"}),
]
Config = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "description": f"at most {MAX_CONFIG} bytes of JSON"})
]


class Resources(BaseModel):
    """What a job needs of one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: WholeNumber = Field(default=0, ge=0, le=8)
    vram_mb: VramMb = 0
    memory_mb: MemoryMb = 0
    devices: Annotated[tuple[DeviceName, ...], BeforeValidator(_listed)] = Field(
        default=(), max_length=MAX_NAMES
    )  # any of; empty: all
    # Later fields, left out of the JSON where they are not used.
    regions: Annotated[tuple[Region, ...], BeforeValidator(_listed)] = Field(
        default=(), max_length=MAX_NAMES, exclude_if=_is_nothing
    )  # any of; empty: all
    tier: WholeNumber = Field(default=0, ge=0, le=MAX_TIER, exclude_if=_is_nothing)  # of the provider, at least
    units_per_hour: WholeNumber = Field(default=0, ge=0, lt=1 << 53, exclude_if=_is_nothing)  # at least
    providers: Providers = Field(default=(), max_length=MAX_NAMES, exclude_if=_is_nothing)  # any of; empty: all
    not_providers: Providers = Field(default=(), max_length=MAX_NAMES, exclude_if=_is_nothing)  # none of
    numerics: Annotated[tuple[Bytes32, ...], BeforeValidator(_listed)] = Field(
        default=(), max_length=MAX_NAMES, exclude_if=_is_nothing
    )  # any of these classes, as the Ask's resources tell the machine's; empty: all
    # With exactly so many, whatever its provider trains with else: on CPUs they decide the bits. 0: that many.
    threads: WholeNumber = Field(default=0, ge=0, le=MAX_THREADS, exclude_if=_is_nothing)

    @model_validator(mode="after")
    def _leaves_somebody(self) -> "Resources":
        if both := [one for one in self.providers if one in self.not_providers]:
            raise ValueError(f"{both[0]} is among providers and not_providers; leave it out of one")
        return self


class JobSpec(BaseModel):
    """The canonical description of a job; its hash is what the Bid signs.

    Fields that came later are left out of the JSON where they are not used: hashes of old jobs stay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: WholeNumber = Field(default=1, ge=1, le=1)
    environment: Environment
    recipe: str = Field(max_length=2 * MAX_PATH)
    config: Config = Field(default_factory=dict)
    files: dict[JobPath, FileRef] = Field(min_length=1, max_length=MAX_FILES)
    seed: WholeNumber = Field(ge=0, lt=1 << 53)
    steps: WholeNumber = Field(ge=1, lt=1 << 53)
    checkpoint_every: WholeNumber = Field(ge=1, lt=1 << 53)
    resources: Resources = Resources()
    interruptible: TrueOrFalse = True
    deadline: Annotated[str | None, Field(max_length=40), BeforeValidator(as_text_time)] = None
    start: JobPath | None = Field(default=None, exclude_if=_is_none)  # weights to start from
    start_step: WholeNumber | None = Field(
        default=None, ge=1, lt=1 << 53, exclude_if=_is_none
    )  # done by an earlier job
    stop: Stop | None = Field(default=None, exclude_if=_is_none)
    sealed: TrueOrFalse = Field(
        default=False, exclude_if=_is_false
    )  # files, checkpoints and logs leave a party only so

    @field_validator("deadline")
    @classmethod
    def _deadline_is_a_time(cls, value: str | None) -> str | None:
        if value is not None:
            parse_time(value)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "JobSpec":
        check_steps(self.steps, self.checkpoint_every)
        match = _RECIPE.match(self.recipe)
        if not match:
            raise ValueError(f"recipe {self.recipe!r} must be 'file.py:Class'")
        if match["path"] not in self.files:
            raise ValueError(f"recipe {self.recipe!r} names {match['path']!r}, which is not among the files")
        if self.start is not None and self.start not in self.files:
            raise ValueError(f"start names {self.start!r}, which is not among the files")
        for path in self.files:
            folder = path.rpartition("/")[0]
            while folder:
                if folder in self.files:
                    raise ValueError(f"{folder!r} is among the files, and {path!r} needs it to be a folder")
                folder = folder.rpartition("/")[0]
        check_json(self.config, "config")
        return self

    @property
    def checkpoints(self) -> int:
        return self.steps // self.checkpoint_every

    def step_of(self, index: int) -> int:
        """The training step after which checkpoint `index` is made. A follow-up job counts on where the first ended."""
        return (self.start_step or 0) + index * self.checkpoint_every

    @property
    def deadline_time(self) -> int | None:
        """UTC seconds."""
        return None if self.deadline is None else int(parse_time(self.deadline).timestamp())

    @property
    def hosts(self) -> frozenset[str]:
        """Those that files are fetched from."""
        return frozenset(ref.host for ref in self.files.values() if ref.host)

    @property
    def stored_files(self) -> dict[str, FileRef]:
        """Those that the market has: all without a url."""
        return {path: ref for path, ref in self.files.items() if ref.url is None}

    @property
    def recipe_path(self) -> str:
        return self.recipe.partition(":")[0]

    @property
    def recipe_class(self) -> str:
        return self.recipe.partition(":")[2]

    @property
    def hashed_config(self) -> dict[str, Any]:
        """`config` as the hash tells it: its keys in order, 1.0 as 1. Whoever serves a JobSpec may change the rest, and
        a recipe that saw it would train to other bits.
        """
        found: dict[str, Any] = read_json(rfc8785.dumps(self.config))
        return found

    def canonical(self) -> bytes:
        """RFC 8785 JSON of all fields."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    def files_hash(self) -> str:
        """Of the files alone, with their paths."""
        return to_hex(keccak(rfc8785.dumps(self.model_dump(mode="json")["files"])))

    def job_hash(self) -> bytes:
        return keccak(self.canonical())


PostedSpec = Annotated[JobSpec, AfterValidator(check_posted)]


def check_steps(steps: int, every: int) -> None:
    """ValueError unless `every` divides `steps` into 1 .. 65535 checkpoints."""
    if steps % every:
        below = steps // every * every
        nearest = " or ".join(str(n) for n in (below, below + every) if n)
        raise ValueError(f"checkpoint_every {every} does not divide steps {steps}; try steps {nearest}")
    if steps // every > MAX_CHECKPOINTS:
        raise ValueError(f"{steps // every} checkpoints are more than {MAX_CHECKPOINTS}; raise checkpoint_every")


def first_problem(
    error: ValidationError,
    known: Mapping[str, Any],
    what: str,
    line: Callable[[tuple[str | int, ...]], int | None] | None = None,
) -> UserError:
    """One readable sentence for the first problem pydantic found, with the nearest known field for a typo.

    `line` tells where in the text `what` a value stands.
    """
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    if line is not None and problem["loc"] and (number := line(problem["loc"])):
        what = f"{what} line {number}"
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(str(problem["loc"][-1]), list(known), n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Known fields: " + ", ".join(sorted(known))
        return UserError(f"{what}: unknown field {where!r}", hint)
    if problem["type"] == "missing":
        return UserError(f"{what}: field {where!r} is missing")
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    told = repr(given) if isinstance(given, str | int | float) else ""
    shown = f" (got {told if len(told) <= MOST_SAID else told[:MOST_SAID] + '...'})" if told not in message else ""
    return UserError(f"{what}: {where + ': ' if where else ''}{message}{shown}")
