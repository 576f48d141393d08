"""Early stop: when a job is good enough to end before its last checkpoint. Pure; docs/protocol.md section 1.

Worker, approver and market decide by the same function, of the metrics in the records of accepted checkpoints.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.types import Finite, WholeNumber


class Stop(BaseModel):
    """A JobSpec's `stop`: end after `patience` checkpoints in a row without progress of `metric`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = Field(min_length=1, max_length=64)
    patience: WholeNumber = Field(ge=1, le=65535)
    min_delta: Finite = Field(default=0.0, ge=0)
    mode: Literal["min", "max"] = "min"

    def reached(self, metrics: Sequence[Mapping[str, float | None]]) -> int | None:
        """The checkpoint at which the job stops, given the metrics of checkpoints 1, 2, ...; None if it goes on.

        Progress is a value better than the best before it by more than `min_delta`; the first value is progress.
        A checkpoint without the metric counts neither way.
        """
        best: float | None = None
        without = 0
        for index, of_checkpoint in enumerate(metrics, start=1):
            value = of_checkpoint.get(self.metric)
            if value is None:
                continue
            gain = None if best is None else best - value if self.mode == "min" else value - best
            if gain is None or gain > self.min_delta:
                best, without = value, 0
                continue
            without += 1
            if without >= self.patience:
                return index
        return None

    def problem(self, metrics: Mapping[str, float]) -> str | None:
        """Why a checkpoint's metrics can't be judged; None if they can."""
        known = ", ".join(sorted(metrics)) or "none"
        return (
            None if self.metric in metrics else f"`stop` goes by {self.metric!r}, the checkpoint's metrics are {known}"
        )

    def sentence(self, index: int) -> str:
        """Why a job ended at checkpoint `index`."""
        return f"early stop at checkpoint {index}: {self.metric} made no progress for {self.patience} checkpoints"
