"""What the worker and its training process say to each other: one JSON object a line, over a pipe.

The process runs a stranger's program, so that the worker trusts none of its lines: they are bounded,
checked against these models, and against what must come next (class Conversation).
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contracts.job.spec import MAX_METRIC_NAME, MAX_METRICS, MAX_NUMERICS, check_json
from worker.training.checkpoints import checkpoint_name
from worker.training.environment import Device
from worker.training.failures import Failure, FailureKind, printable

MAX_LINE = 64 * 1024  # bytes

Metrics = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=MAX_METRIC_NAME)],
        Annotated[float, Field(allow_inf_nan=False)],
    ],
    Field(max_length=MAX_METRICS),
]
Said = Annotated[str, AfterValidator(printable)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ResourceLimits(Strict):
    """What the training process imposes on itself before it loads the recipe; sizes in bytes."""

    data: int | None = None
    file_size: int | None = None
    open_files: int | None = None
    processes: int | None = None


class HarnessConfig(Strict):
    """The first line to the harness. Its paths are as the process sees them."""

    job_folder: Path
    output_folder: Path
    state: Path | None  # the checkpoint to go on from; None: a fresh start
    recipe: str
    config: dict[str, Any]
    files: list[str]
    seed: int
    checkpoint_every: int
    first: int  # checkpoint to make first
    last: int
    start_step: int = 0  # steps that an earlier job has done
    weights: str | None = None  # the file of the job that a fresh start takes up
    threads: int
    device: Device
    sandboxed: bool = True
    sibling_imports: bool  # whether the recipe may import other files of the job
    ahead: int  # checkpoints that may wait for the worker before training does
    step_interval: float  # seconds, at least, between two `step` messages
    evaluate: bool = True  # whether the recipe's `evaluate` runs at checkpoints, if it has one
    limits: ResourceLimits


class Command(Strict):
    type: Literal["go", "stop", "ack"]
    index: int = 0  # of the checkpoint acknowledged


class Measured(Strict):
    """What decides the bits, said before the process has loaded anything of the recipe's."""

    type: Literal["measured"] = "measured"
    numerics: Annotated[
        dict[str, str | int], AfterValidator(partial(check_json, what="numerics", most=MAX_NUMERICS))
    ] = Field(max_length=64)


class Ready(Strict):
    type: Literal["ready"] = "ready"
    flops: int = Field(gt=0, lt=2**63)  # of one step
    units: int = Field(gt=0, lt=2**63)  # of one checkpoint
    parameters: int = Field(ge=0, lt=2**63)


class Stepped(Strict):
    type: Literal["step"] = "step"
    step: int
    metrics: Metrics
    seconds: Seconds


class Checkpoint(Strict):
    type: Literal["checkpoint"] = "checkpoint"
    index: int
    step: int
    path: str = Field(max_length=200)  # a file's name in the output folder
    metrics: Metrics
    trace_root: str = Field(pattern=r"^0x[0-9a-f]{64}$")
    seconds: Seconds


class Failed(Strict):
    type: Literal["failed"] = "failed"
    kind: FailureKind
    message: Said = Field(max_length=4_000)
    hint: Said | None = Field(default=None, max_length=1_000)
    traceback: Said = Field(default="", max_length=16_000)

    def failure(self) -> Failure:
        return Failure(self.kind, self.message, self.hint, self.traceback)


class Stopped(Strict):
    type: Literal["stopped"] = "stopped"
    step: int  # the last one done


class Done(Strict):
    type: Literal["done"] = "done"


Message = Measured | Ready | Stepped | Checkpoint | Failed | Stopped | Done
Terminal = (Failed, Stopped, Done)
_message: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


class Conversation:
    """Checks that a training process says what it may, in order. Every method raises Failure("protocol")."""

    def __init__(self, *, first: int, last: int, checkpoint_every: int, start_step: int = 0) -> None:
        self._next_checkpoint, self._last, self._every = first, last, checkpoint_every
        self._start_step = start_step
        self._step = self._at(first - 1)
        self._measured = self._ready = False

    def hear(self, line: bytes) -> Message:
        try:
            message = _message.validate_json(line)
        except ValidationError as error:
            reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
            raise _broken(f"a line that is no message ({reasons})") from error
        if isinstance(message, Measured) == self._measured and not isinstance(message, Failed):
            raise _broken("`measured` twice" if self._measured else f"`{message.type}` before `measured`")
        if not self._ready and not isinstance(message, Measured | Ready | Failed):
            raise _broken(f"`{message.type}` before `ready`")
        match message:
            case Measured():
                self._measured = True
            case Ready():
                if self._ready:
                    raise _broken("`ready` twice")
                self._ready = True
            case Stepped():
                self._hear_step(message)
            case Checkpoint():
                self._hear_checkpoint(message)
            case Failed(kind="machine"):
                raise _broken("word of this machine's trouble, which is not its to judge")
            case Done():
                if self._next_checkpoint <= self._last:
                    raise _broken(f"`done` before checkpoint {self._next_checkpoint}")
        return message

    def _at(self, index: int) -> int:
        """The step after which checkpoint `index` is made."""
        return self._start_step + index * self._every

    def _hear_step(self, message: Stepped) -> None:
        if not self._step < message.step <= self._at(self._next_checkpoint):
            raise _broken(f"step {message.step} after step {self._step}")
        self._step = message.step

    def _hear_checkpoint(self, message: Checkpoint) -> None:
        index = self._next_checkpoint
        if index > self._last or (message.index, message.step) != (index, self._at(index)):
            raise _broken(f"checkpoint {message.index} at step {message.step} when {index} was next")
        if message.path != checkpoint_name(index):
            raise _broken(f"checkpoint {index} at {message.path!r:.100} instead of {checkpoint_name(index)}")
        self._step, self._next_checkpoint = message.step, index + 1


def _broken(what: str) -> Failure:
    return Failure("protocol", f"the training process sent {what}", "the recipe may have tampered with it")
