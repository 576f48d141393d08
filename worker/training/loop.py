"""The training loop, which the worker owns: seeds, steps, the trace of step digests, checkpoints."""

import hashlib
import math
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from ctypes import string_at
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from contracts.commitment import sample_positions, step_digest, trace_root
from contracts.job.spec import MAX_METRIC_NAME, MAX_METRICS
from worker.training.checkpoints import checkpoint_name, trace_name
from worker.training.failures import Failure, not_finite
from worker.training.recipe import Recipe
from worker.training.starting.seeding import seed_everything
from worker.training.state import (
    FlatState,
    as_bytes,
    check_state,
    difference,
    flatten,
    read_checkpoint,
    unflatten,
    write_checkpoint,
    written,
)

FULL_SECONDS = 2.0  # until a full disk is tried again
_UNLIKE = (KeyError, ValueError, TypeError, AttributeError, RuntimeError)  # what taking up a strange state raises


@dataclass(frozen=True)
class StepDone:
    step: int
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class CheckpointSaved:
    index: int
    step: int
    path: Path
    metrics: dict[str, float]  # of its last step
    trace_root: bytes
    seconds: float  # since the checkpoint before it


def start_recipe(make: Callable[[], Recipe], seed: int, state: Path | None, weights: Path | None = None) -> Recipe:
    """A recipe where a stretch starts: built under step 0's seed, then put into the saved state, if any.

    Without one it gets the `weights` that the job starts from, if it names some. Raises Failure("state") if the
    recipe does not take up the saved state bit for bit, or can't load the weights.
    """
    seed_everything(seed, 0)
    recipe = make()
    if state is None:
        if weights is not None:
            _load_weights(recipe, weights)
        return recipe
    try:
        recipe.load_state_dict(_copy_of_state(state))
    except _UNLIKE as error:
        older = isinstance(error, AttributeError | TypeError) and _started_as_before(make, seed, state)
        if not older:
            raise Failure(
                "state",
                f"load_state_dict raised {type(error).__name__}: {error}",
                "the checkpoint must come from the same recipe and config",
            ) from error
        recipe = older
    differs = difference(flatten(recipe.state_dict()), read_checkpoint(state))
    if differs:
        raise Failure(
            "state",
            f"after load_state_dict the state is not what was saved: {differs}",
            "load_state_dict must restore all that state_dict returns",
        )
    return recipe


def _copy_of_state(path: Path, *, kinds: bool = True) -> dict[str, Any]:
    """A saved state of its own, as load_state_dict may keep the tensors it is given."""
    saved = read_checkpoint(path)
    return unflatten(
        FlatState({name: tensor.clone() for name, tensor in saved.items()}, kinds=saved.kinds if kinds else {})
    )


def _started_as_before(make: Callable[[], Recipe], seed: int, state: Path) -> Recipe | None:
    """A recipe that can only take numbers as tensors, such as by `state["seen"].item()`, as all got them once."""
    seed_everything(seed, 0)
    recipe = make()
    try:
        recipe.load_state_dict(_copy_of_state(state, kinds=False))
    except _UNLIKE:
        return None
    return recipe


def _load_weights(recipe: Recipe, path: Path) -> None:
    """Into `load_weights` if the recipe has that, else into `load_state_dict`."""
    load = getattr(recipe, "load_weights", None) or recipe.load_state_dict
    tensors = unflatten(read_checkpoint(path))
    try:
        load(tensors)
    except _UNLIKE as error:
        raise Failure(
            "state",
            f"{load.__name__} raised {type(error).__name__} at the weights that the job starts from: {error}",
            "give the recipe a method load_weights(tensors) that takes what is in the file",
        ) from error


def train(
    recipe: Recipe,
    *,
    seed: int,
    checkpoint_every: int,
    first: int,
    last: int,
    folder: Path,
    start_step: int = 0,
    evaluate: bool = True,
) -> Iterator[StepDone | CheckpointSaved]:
    """Makes checkpoints first .. last of a recipe that is at checkpoint first - 1; writes them to `folder`.

    `start_step` steps were done by an earlier job. The recipe's `evaluate`, if it has one and unless `evaluate` is
    False, runs after the last step of each checkpoint: what it returns are metrics of that step, so that the trace
    commits to them.
    Beside each checkpoint stands its trace: 32 bytes a step, to be kept private until a replay has been
    judged. To stop, close the generator: what comes after the last checkpoint is lost, and can be computed
    again. Raises Failure of kind "nan", "exception", "state"; what the recipe raises passes through.
    """
    for index in range(first, last + 1):
        began = time.monotonic()
        trace: list[bytes] = []
        before, at = (start_step + number * checkpoint_every for number in (index - 1, index))
        for step in range(before + 1, at + 1):
            step_began = time.monotonic()
            seed_everything(seed, step)
            metrics = checked_metrics(recipe.step(step), step)
            state = flatten(recipe.state_dict())
            if index == first and step == before + 1:
                check_state(state)
            if step == at and evaluate and hasattr(recipe, "evaluate"):
                metrics = checked_metrics({**metrics, **_evaluated(recipe, seed, step, checked=index == first)}, step)
                state = flatten(recipe.state_dict())
            trace.append(step_digest(step, metrics, sample(state, seed, step)))
            yield StepDone(step, metrics, time.monotonic() - step_began)
        path = folder / checkpoint_name(index)
        while not _saved(path, state, folder / trace_name(index), trace):
            time.sleep(FULL_SECONDS)
        yield CheckpointSaved(index, step, path, metrics, trace_root(trace), time.monotonic() - began)


def _evaluated(recipe: Any, seed: int, step: int, *, checked: bool) -> dict[str, Any]:
    """What the recipe's `evaluate` returns, as `eval_NAME`. `checked`: make sure that it leaves the state alone."""
    before = _fingerprint(recipe) if checked else b""
    seed_everything(seed, step)
    with torch.no_grad():
        metrics = recipe.evaluate()
    if not isinstance(metrics, Mapping):
        raise _no_metrics(step, f"a {type(metrics).__name__} from evaluate()")
    if checked and _fingerprint(recipe) != before:
        raise Failure("state", "evaluate() changed the state that is trained", "evaluate a copy, or in eval() mode")
    return {f"eval_{name}": value for name, value in metrics.items()}


def _fingerprint(recipe: Recipe) -> bytes:
    digest = hashlib.sha256()
    for tensor in flatten(recipe.state_dict()).values():
        digest.update(as_bytes(tensor).cpu().numpy())
    return digest.digest()


def checked_metrics(metrics: Any, step: int) -> dict[str, float]:
    """A step's metrics as floats. Raises Failure of kind "nan" or "exception" (they are no metrics)."""
    if not isinstance(metrics, Mapping):
        raise _no_metrics(step, f"a {type(metrics).__name__}")
    if len(metrics) > MAX_METRICS:
        raise _no_metrics(step, f"{len(metrics)} metrics")
    checked: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(name, str) or not 0 < len(name.encode()) <= MAX_METRIC_NAME:
            raise _no_metrics(step, f"a metric named {name!r:.80}")
        try:
            checked[name] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise _no_metrics(step, f"{name} = {value!r:.80}") from error
        if not math.isfinite(checked[name]):
            raise not_finite(name, checked[name], step)
    return checked


def _no_metrics(step: int, returned: str) -> Failure:
    return Failure(
        "exception",
        f"step {step} returned {returned}",
        f'step() returns at most {MAX_METRICS} named numbers, such as {{"loss": loss.item()}}',
    )


def sample(state: Mapping[str, Tensor], seed: int, step: int) -> bytes:
    """The bytes of the state elements that a step's digest takes in, in the order of their positions' draw.

    `state` is flat and ordered by name. Of other devices only the drawn elements come here, all at once.
    """
    tensors = list(state.values())
    ends = list(accumulate(tensor.numel() for tensor in tensors))
    drawn = sample_positions(seed, step, ends[-1] if tensors else 0)
    places_of: dict[int, list[int]] = {}  # by the tensor's number
    for place, position in enumerate(drawn):
        places_of.setdefault(bisect_right(ends, position), []).append(place)
    elements = [b""] * len(drawn)
    elsewhere: dict[torch.device, list[Pick]] = {}
    for owner, places in places_of.items():
        tensor = tensors[owner]
        start, size = ends[owner] - tensor.numel(), tensor.element_size()
        if tensor.device.type == "cpu" and tensor.is_contiguous():
            memory = tensor.data_ptr() - start * size  # a torch operation for each tensor would take ten times as long
            for place in places:
                elements[place] = string_at(memory + drawn[place] * size, size)
        else:
            pick = Pick(tensor, [drawn[place] - start for place in places], places)
            elsewhere.setdefault(tensor.device, []).append(pick)
    for device, picks in elsewhere.items():
        _fetch(device, picks, elements)
    return b"".join(elements)


class Pick(NamedTuple):
    """Elements of one tensor, and their places in a sample."""

    tensor: Tensor
    offsets: list[int]
    places: list[int]


def _fetch(device: torch.device, picks: list[Pick], elements: list[bytes]) -> None:
    """Puts the elements where they belong: one way to the device, and one back."""
    offsets = torch.tensor([offset for pick in picks for offset in pick.offsets], device=device)
    parts = offsets.split([len(pick.offsets) for pick in picks])
    rows = [as_bytes(pick.tensor).view(-1, pick.tensor.element_size()) for pick in picks]
    fetched = torch.cat([row[part].reshape(-1) for row, part in zip(rows, parts, strict=True)])
    data, at = fetched.cpu().numpy().tobytes(), 0
    for pick in picks:
        size = pick.tensor.element_size()
        for place in pick.places:
            elements[place] = data[at : at + size]
            at += size


def _saved(path: Path, state: Mapping[str, Tensor], trace_path: Path, trace: list[bytes]) -> bool:
    """Whether there was room for both files. A full disk loses no step: the state stays here until there is."""
    try:
        with written(trace_path) as partial:
            partial.write_bytes(b"".join(trace))
        write_checkpoint(path, state)
    except OSError as error:
        print(f"{error}; trying again", file=sys.stderr, flush=True)
        return False
    return True
