"""JobSpec: what a job is, byte for byte; and job.yaml, the file a client writes. docs/protocol.md section 1.

Parsing and hashing are pure; `pack` reads the job's folder. A recipe is bytes here: nothing of it is run.
"""

import hashlib
import posixpath
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import rfc8785
import yaml
from eth_utils.crypto import keccak
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from contracts.errors import UserError
from contracts.types import Bytes32

MAX_FILES = 1000
MAX_CHECKPOINTS = 65535
MAX_DEPTH = 64  # of a config: serializers of JSON stop somewhere, and in a body it is inside other objects
_RECIPE = re.compile(r"^(?P<path>[^:]+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)$")


def check_path(path: str) -> str:
    """A relative, normalised, `/`-separated path inside the job; ValueError otherwise."""
    bad = (
        not path
        or path.startswith("/")
        or "\\" in path
        or "\0" in path
        or posixpath.normpath(path) != path
        or path.split("/")[0] in ("..", ".")
        or len(path.encode()) > 255
    )
    if bad:
        raise ValueError(f"path {path!r} is not a plain relative path inside the job (no '..', no leading '/')")
    return path


def parse_time(text: str) -> datetime:
    """RFC 3339 UTC, written with `Z`."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", text):
        raise ValueError(f"time {text!r} is not RFC 3339 in UTC, such as 2030-01-31T12:00:00Z")
    return datetime.fromisoformat(text)


def _as_text_time(value: Any) -> Any:
    """YAML reads an unquoted time as a datetime; take it back to text."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return value


def check_json(value: dict[str, Any], what: str) -> dict[str, Any]:
    """ValueError unless it can be written as canonical JSON, and is nested no deeper than any reader can follow."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [item for items in inner for item in items if isinstance(item, dict | list | tuple)]
    if level:
        raise ValueError(f"{what} is nested more than {MAX_DEPTH} deep")
    try:
        rfc8785.dumps(value)
    except Exception as error:
        raise ValueError(f"{what} can't be written as canonical JSON: {error}") from error
    return value


JobPath = Annotated[str, AfterValidator(check_path)]


class FileRef(BaseModel):
    """One file of a job, by content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Bytes32
    size: int = Field(ge=0, lt=1 << 53)


class Resources(BaseModel):
    """What a job needs of one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: int = Field(default=0, ge=0, le=8)
    vram_mb: int = Field(default=0, ge=0, le=10_000_000)
    memory_mb: int = Field(default=0, ge=0, le=100_000_000)
    devices: tuple[str, ...] = ()


class JobSpec(BaseModel):
    """The canonical description of a job; its hash is what the Bid signs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=1, ge=1, le=1)
    environment: str = Field(pattern=r"^[a-z0-9][a-z0-9.+-]{0,63}$")
    recipe: str
    config: dict[str, Any] = Field(default_factory=dict)
    files: dict[JobPath, FileRef] = Field(min_length=1, max_length=MAX_FILES)
    seed: int = Field(ge=0, lt=1 << 53)
    steps: int = Field(ge=1, lt=1 << 53)
    checkpoint_every: int = Field(ge=1, lt=1 << 53)
    resources: Resources = Resources()
    interruptible: bool = True
    deadline: Annotated[str | None, BeforeValidator(_as_text_time)] = None

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

    @property
    def recipe_path(self) -> str:
        return self.recipe.partition(":")[0]

    @property
    def recipe_class(self) -> str:
        return self.recipe.partition(":")[2]

    def canonical(self) -> bytes:
        """RFC 8785 JSON of all fields."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    def job_hash(self) -> bytes:
        return keccak(self.canonical())


def check_steps(steps: int, every: int) -> None:
    """ValueError unless `every` divides `steps` into 1 .. 65535 checkpoints."""
    if steps % every:
        below = steps // every * every
        nearest = " or ".join(str(n) for n in (below, below + every) if n)
        raise ValueError(f"checkpoint_every {every} does not divide steps {steps}; try steps {nearest}")
    if steps // every > MAX_CHECKPOINTS:
        raise ValueError(f"{steps // every} checkpoints are more than {MAX_CHECKPOINTS}; raise checkpoint_every")


class JobFile(BaseModel):
    """job.yaml: the JobSpec's fields, with files as paths, and what the client offers for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="job", min_length=1, max_length=100)
    environment: str
    recipe: str
    config: dict[str, Any] = Field(default_factory=dict)
    files: list[JobPath] = Field(min_length=1, max_length=MAX_FILES)
    seed: int = 0
    steps: int = Field(ge=1)
    checkpoint_every: int = Field(ge=1)
    resources: Resources = Resources()
    interruptible: bool = True
    deadline: Annotated[str | None, BeforeValidator(_as_text_time)] = None
    # The offer. Amounts are whole tokens, as text, so that no float ever holds money.
    units: int | None = Field(default=None, ge=1, description="work units per checkpoint; `recipe measure` fills it")
    max_price: Annotated[str | None, BeforeValidator(lambda v: v if v is None else str(v))] = Field(
        default=None, description="tokens per checkpoint at most, fee included"
    )
    stake: Annotated[str | None, BeforeValidator(lambda v: v if v is None else str(v))] = Field(
        default=None, description="tokens that a provider must lock"
    )
    rules: str | None = Field(default=None, description="name of the rule-set")
    valid_for: int = Field(default=7 * 24 * 3600, ge=1, description="seconds in which leases may be opened")

    @model_validator(mode="after")
    def _steps_divide(self) -> "JobFile":
        check_steps(self.steps, self.checkpoint_every)
        return self


def first_problem(error: ValidationError, known: Mapping[str, Any], what: str) -> UserError:
    """One readable sentence for the first problem pydantic found, with the nearest known field for a typo."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(str(problem["loc"][-1]), list(known), n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Known fields: " + ", ".join(sorted(known))
        return UserError(f"{what}: unknown field {where!r}", hint)
    if problem["type"] == "missing":
        return UserError(f"{what}: field {where!r} is missing")
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float) and repr(given) not in message else ""
    return UserError(f"{what}: {where + ': ' if where else ''}{message}{shown}")


def parse_job_file(text: str, what: str = "job.yaml") -> JobFile:
    """Parse job.yaml's text. Raises UserError that names the field and the value."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{what} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{what} must be a mapping of fields, got {type(data).__name__}")
    try:
        return JobFile.model_validate(data)
    except ValidationError as error:
        known = dict(JobFile.model_fields) | dict(Resources.model_fields)
        raise first_problem(error, known, what) from error


def hash_file(path: Path) -> FileRef:
    """Size and SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileRef(sha256="0x" + digest.hexdigest(), size=file.tell())


def pack(job: JobFile, folder: Path) -> JobSpec:
    """Hash the job's files below `folder` into its JobSpec. Raises UserError for a missing or linked file."""
    refs: dict[str, FileRef] = {}
    root = folder.resolve()
    for name in job.files:
        path = folder / name
        if not path.is_file():
            raise UserError(f"file {name!r} of the job is not in {folder}", "Put it there or take it out of `files`.")
        if path.resolve() != root / name:
            raise UserError(f"file {name!r} of the job is, or lies behind, a link", "Put the file itself there.")
        refs[name] = hash_file(path)
    fields = job.model_dump(
        include={
            "environment", "recipe", "config", "seed", "steps", "checkpoint_every", "resources",
            "interruptible", "deadline",
        }
    )  # fmt: skip
    try:
        return JobSpec.model_validate({**fields, "files": refs})
    except ValidationError as error:
        raise first_problem(error, JobSpec.model_fields, "job") from error


def read_job(path: Path) -> tuple[JobFile, JobSpec]:
    """Read job.yaml (or the folder that holds one) and hash its files."""
    path = path / "job.yaml" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"no job file at {path}", "Make one with `gpumarket recipe new NAME DIR`.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {error}", "A job file is YAML, in UTF-8.") from error
    job = parse_job_file(text, str(path))
    return job, pack(job, path.parent)
