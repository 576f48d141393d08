"""job.yaml, the file a client writes: what to train, and what is offered for it. docs/client.md describes each field.

`pack` hashes the job's folder. A recipe is bytes here: nothing of it is run, and no torch is needed.
"""

import hashlib
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from contracts.commitment import canonical_hash
from contracts.errors import UserError
from contracts.job.early_stop import Stop
from contracts.job.measured import MeasuredOn
from contracts.job.spec import (
    MAX_FILES,
    Environment,
    FileRef,
    JobPath,
    JobSpec,
    Resources,
    as_text_time,
    check_posted,
    check_steps,
    check_url,
    first_problem,
    parse_time,
)
from contracts.job.yaml_text import MAX_BYTES, MAX_DIGITS, check_length, parse_yaml
from contracts.text import check_texts
from contracts.types import TrueOrFalse, WholeNumber, to_hex

AS_WRITTEN = ("name", "deadline", "max_price", "budget", "stake")  # no float may come between money and its text
_PLAIN_DECIMAL = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?")


def plain_price(value: Any) -> Any:
    """`0.5`, `"0.5"` or `0.5 per checkpoint`. Other units are refused: a Bid signs the price of a checkpoint.

    Raises ValueError.
    """
    text = value if value is None else str(value)
    amount, per, unit = text.partition(" per ") if text else ("", "", "")
    if per and unit.strip() != "checkpoint":
        raise ValueError(
            f"{text!r}: a price is in tokens per checkpoint, such as `0.5 per checkpoint`; how long one takes differs "
            "from machine to machine. To limit the whole job, use `budget`"
        )
    return amount.strip() if per else text


def _without_0x(value: Any) -> Any:
    """`sha256sum` writes hashes without 0x."""
    if isinstance(value, dict) and re.fullmatch(r"[0-9a-fA-F]{64}", str(value.get("sha256"))):
        return value | {"sha256": "0x" + value["sha256"].lower()}
    return value


class RemoteFile(FileRef):
    """A file in job.yaml that agents fetch by themselves."""

    url: Annotated[str, Field(max_length=2000), AfterValidator(check_url)]


def _as_mapping(value: Any) -> Any:
    return dict.fromkeys(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value


def _plain_amount(text: str | None) -> str | None:
    """Without needless zeros. ValueError for what could be read in two ways: 0100 was octal, 12:30 to the base 60."""
    if text is None:
        return None
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a text of {len(text)} characters is not an amount")
    if not _PLAIN_DECIMAL.fullmatch(text):
        raise ValueError(f"{text!r} is not an amount; write whole tokens as a plain decimal, such as 12.5 or 0.00001")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _utc_as_written(value: Any) -> Any:
    """YAML 1.1 had times: `2030-01-31 12:00:00` and the like stay allowed where a time is wanted."""
    try:
        return as_text_time(datetime.fromisoformat(value)) if isinstance(value, str) and " " in value else value
    except ValueError:
        return value


def _as_a_time(text: str | None) -> str | None:
    if text is not None:
        parse_time(text)
    return text


Amount = Annotated[
    str | None, BeforeValidator(lambda value: value if value is None else str(value)), AfterValidator(_plain_amount)
]


class JobFile(BaseModel):
    """job.yaml: the JobSpec's fields, with files as paths, and what the client offers for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="job", min_length=1, max_length=100)
    environment: Environment
    recipe: str
    config: dict[str, Any] = Field(default_factory=dict)
    files: Annotated[
        dict[JobPath, Annotated[RemoteFile | None, BeforeValidator(_without_0x)]], BeforeValidator(_as_mapping)
    ] = Field(min_length=1, max_length=MAX_FILES)
    seed: WholeNumber = Field(default=0, ge=0, lt=1 << 53)
    steps: WholeNumber = Field(ge=1, lt=1 << 53)
    checkpoint_every: WholeNumber = Field(ge=1, lt=1 << 53)
    resources: Resources = Resources()
    interruptible: TrueOrFalse = True
    deadline: Annotated[
        str | None, BeforeValidator(_utc_as_written), BeforeValidator(as_text_time), AfterValidator(_as_a_time)
    ] = None
    start: JobPath | None = Field(default=None, description="file of weights to start from, safetensors")
    stop: Stop | None = None
    sealed: TrueOrFalse = Field(default=False, description="the market gets ciphertext only")
    # The offer. Amounts are whole tokens, as text, so that no float ever holds money.
    units: WholeNumber | None = Field(
        default=None, ge=1, description="work units per checkpoint; `recipe measure` fills it"
    )
    units_of: str | None = Field(
        default=None, max_length=80, description="hash of what they were counted of; `recipe measure` fills it"
    )
    measured_on: MeasuredOn | None = Field(default=None, description="where they were; `recipe measure` fills it")
    max_price: Annotated[str | None, BeforeValidator(plain_price), AfterValidator(_plain_amount)] = Field(
        default=None, description="tokens per checkpoint at most, fee included"
    )
    budget: Amount = Field(default=None, description="tokens for the whole job at most, fees included")
    stake: Amount = Field(default=None, description="tokens that a provider must lock")
    rules: str | None = Field(default=None, description="name of the rule-set")
    valid_for: WholeNumber = Field(default=7 * 24 * 3600, ge=1, description="seconds in which leases may be opened")

    @model_validator(mode="after")
    def _steps_divide(self) -> "JobFile":
        check_steps(self.steps, self.checkpoint_every)
        return self


def parse_job_file(text: str, what: str = "job.yaml") -> JobFile:
    """Parse job.yaml's text, YAML 1.2. Raises UserError that names the line, the field and the value."""
    document = parse_yaml(text, what, AS_WRITTEN)
    data = document.value
    if not isinstance(data, dict):
        raise UserError(f"{what} must be a mapping of fields, got {type(data).__name__}")
    try:
        return JobFile.model_validate(data)
    except ValidationError as error:
        known = dict(JobFile.model_fields) | dict(Resources.model_fields)
        raise first_problem(error, known, what, document.line) from error


def pack(job: JobFile, folder: Path) -> JobSpec:
    """Hash the job's files below `folder` into its JobSpec. Raises UserError for a missing or linked file."""
    refs: dict[str, FileRef] = {}
    root = folder.resolve()
    for name, remote in job.files.items():
        path = folder / name
        if remote is not None and not path.exists():
            refs[name] = FileRef.model_validate(remote.model_dump())
            continue
        if not path.is_file():
            raise UserError(f"file {name!r} of the job is not in {folder}", "Put it there or take it out of `files`.")
        if path.resolve() != root / name:
            raise UserError(f"file {name!r} of the job is, or lies behind, a link", "Put the file itself there.")
        refs[name] = hash_file(path)
        if remote is not None:
            if not remote.same_bytes(refs[name]):
                raise UserError(
                    f"{name} here has {refs[name].size} bytes with SHA-256 {refs[name].sha256}, job.yaml says "
                    f"{remote.size} and {remote.sha256} for {remote.url}",
                    "Correct job.yaml, or delete the file here: agents fetch it.",
                )
            refs[name] = FileRef.model_validate(remote.model_dump())
    fields = job.model_dump(
        include={
            "environment", "recipe", "config", "seed", "steps", "checkpoint_every", "resources",
            "interruptible", "deadline", "start", "stop", "sealed",
        }
    )  # fmt: skip
    try:
        spec = check_posted(JobSpec.model_validate({**fields, "files": refs}))
    except ValidationError as error:
        raise first_problem(error, JobSpec.model_fields, "job") from error
    except ValueError as error:
        raise UserError(f"job: {error}", "Put what is large into a file of the job, which the recipe reads.") from error
    try:
        check_texts(spec.model_dump(mode="json"), "job")
    except ValueError as error:
        raise UserError(str(error), "Take it out of job.yaml, or put what needs it into a file of the job.") from error
    return spec


def read_job(path: Path) -> tuple[JobFile, JobSpec]:
    """Read job.yaml (or the folder that holds one) and hash its files."""
    path = path / "job.yaml" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"no job file at {path}", "Make one with `gpumarket recipe new NAME DIR`.")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        check_length(len(data), str(path))
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {error}", "A job file is YAML, in UTF-8.") from error
    job = parse_job_file(text, str(path))
    return job, pack(job, path.parent)


def work_hash(spec: JobSpec, units: int) -> str:
    """Of what a job's units depend on: its programs and their config, the steps of a checkpoint; and the number."""
    what = {
        "recipe": spec.recipe,
        "config": spec.config,
        "checkpoint_every": spec.checkpoint_every,
        "programs": {name: ref.sha256 for name, ref in spec.files.items() if name.endswith(".py")},
        "units": str(units),  # of any size
    }
    return to_hex(canonical_hash(what)[:8])


def check_units(job: JobFile, spec: JobSpec, path: Path) -> None:
    """Raises UserError if the units in job.yaml are those of another recipe or config; without `units_of` nobody knows.

    `path`: of job.yaml or its folder, as the user wrote it.
    """
    if job.units is not None and job.units_of is not None and job.units_of != work_hash(spec, job.units):
        raise UserError(
            f"{path}: since its {job.units} units were counted, the recipe, its config, checkpoint_every or the number "
            "itself has changed",
            f"count them again: gpumarket recipe measure {path}; if the number is your own, delete the line `units_of`",
        )


def hash_file(path: Path) -> FileRef:
    """Size and SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileRef(sha256="0x" + digest.hexdigest(), size=file.tell())
