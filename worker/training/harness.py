"""The training process: loads a recipe, counts its work, trains it, and reports over a pipe.

Started by worker/sandbox/runner.py, usually inside a sandbox. Its standard input and output are the pipe; whatever
the recipe prints goes to standard error, the log.
"""

import contextlib
import copy
import ctypes
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

import torch
from pydantic import BaseModel

from worker.training import messages
from worker.training.explain import recipe_trace, sandbox_hint
from worker.training.failures import Failure
from worker.training.loop import CheckpointSaved, start_recipe, train
from worker.training.messages import HarnessConfig, ResourceLimits
from worker.training.numerics import numerics
from worker.training.recipe import Recipe, load_recipe
from worker.training.starting.idle_compiler import put_off_compiler
from worker.training.starting.seeding import pin
from worker.training.work_units import count_work

MEMORY_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "out of memory",
    "Cannot allocate memory",
)
EXPLAINED = ("recipe", "exception", "state")  # kinds that hold exceptions of the recipe
# What a recipe has of the worker's limits that bind nobody else; the same wherever it runs.
USUAL = (
    (resource.RLIMIT_STACK, 8 << 20),
    (resource.RLIMIT_MEMLOCK, 64 << 10),
    (resource.RLIMIT_MSGQUEUE, 0),
    (resource.RLIMIT_RTPRIO, 0),
    (resource.RLIMIT_NICE, 0),
)
MAX_SIGNALS = 1024  # that wait, and timers: the kernel's memory


class Commands:
    """What the worker told us so far. Its silence for good (end of file) ends this process at once."""

    def __init__(self, pipe: BinaryIO, acknowledged: int) -> None:
        self._changed = threading.Condition()
        self._go = self._stop = False
        self._acknowledged = acknowledged
        threading.Thread(target=self._listen, args=(pipe,), daemon=True).start()

    def _listen(self, pipe: BinaryIO) -> None:
        for line in pipe:
            command = messages.Command.model_validate_json(line)
            with self._changed:
                self._go |= command.type == "go"
                self._stop |= command.type == "stop"
                self._acknowledged = max(self._acknowledged, command.index)
                self._changed.notify_all()
        os._exit(1)

    @property
    def stop(self) -> bool:
        return self._stop

    def wait_for_go(self) -> None:
        self._wait(lambda: self._go)

    def wait_for_ack(self, index: int) -> None:
        self._wait(lambda: self._acknowledged >= index)

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stop or ready())


class Channel:
    """The way out to the worker."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe

    def send(self, message: BaseModel) -> None:
        self._pipe.write(message.model_dump_json().encode() + b"\n")
        self._pipe.flush()


def run_harness() -> None:
    commands_in, channel = _take_the_pipe()
    config = HarnessConfig.model_validate_json(commands_in.readline())
    limit_resources(config.limits)
    commands = Commands(commands_in, acknowledged=config.first - 1)
    try:
        channel.send(run_job(config, commands, channel))
    except BaseException as error:  # also SystemExit: a recipe may call exit()
        channel.send(failed(error, config))
    finally:
        _flush()
        os._exit(0)  # no thread or exit handler of the recipe may keep the process


def _flush() -> None:
    """What the recipe has printed, also through C's own buffers."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # they may be the recipe's by now
            stream.flush()
    ctypes.CDLL(None).fflush(None)


def _take_the_pipe() -> tuple[BinaryIO, Channel]:
    """Standard input and output, out of the way of whatever the recipe reads and prints."""
    commands, out = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return os.fdopen(commands, "rb"), Channel(os.fdopen(out, "wb"))


def run_job(config: HarnessConfig, commands: Commands, channel: Channel) -> messages.Stopped | messages.Done:
    put_off_compiler()
    pin(config.threads)
    # Before anything of the recipe's is loaded, which could say what it likes in this process.
    channel.send(messages.Measured(numerics=numerics(config.device)))
    if config.sibling_imports:
        sys.path.append(str(config.job_folder))
    data = {path: config.job_folder / path for path in config.files}

    def make() -> Callable[[], Recipe]:
        # Imported anew for counting and for training: module globals don't leak from one to the other.
        recipe = load_recipe(config.recipe, config.job_folder)
        return lambda: recipe(copy.deepcopy(config.config), dict(data))

    work = count_work(make(), config.seed, config.checkpoint_every)
    channel.send(messages.Ready(**work._asdict()))
    commands.wait_for_go()
    step = config.start_step + (config.first - 1) * config.checkpoint_every
    if commands.stop:
        return messages.Stopped(step=step)
    said = 0.0
    weights = config.job_folder / config.weights if config.weights else None
    recipe = start_recipe(make(), config.seed, config.state, weights)
    for event in train(
        recipe,
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
        first=config.first,
        last=config.last,
        folder=config.output_folder,
        start_step=config.start_step,
        evaluate=config.evaluate,
    ):
        step = event.step
        if isinstance(event, CheckpointSaved):
            channel.send(_checkpoint(event))
            commands.wait_for_ack(event.index - config.ahead)
            if event.index == config.last:
                break
        else:
            at_boundary = (step - config.start_step) % config.checkpoint_every == 0
            if at_boundary or time.monotonic() - said >= config.step_interval:
                said = time.monotonic()
                channel.send(messages.Stepped(**vars(event)))
            if at_boundary:
                continue  # its checkpoint comes next, stop or not
        if commands.stop:
            return messages.Stopped(step=step)
    return messages.Done()


def _checkpoint(saved: CheckpointSaved) -> messages.Checkpoint:
    fields = vars(saved) | {"path": saved.path.name, "trace_root": "0x" + saved.trace_root.hex()}
    return messages.Checkpoint(**fields)


def limit_resources(limits: ResourceLimits) -> None:
    """Limits this process and its children for good (only a privileged process could raise them again)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (MAX_SIGNALS, MAX_SIGNALS))
    for kind, most in USUAL:
        hard = resource.getrlimit(kind)[1]
        lowered = most if hard == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(kind, (lowered, lowered))
    os.umask(0o022)
    for kind, value in (
        (resource.RLIMIT_DATA, limits.data),
        (resource.RLIMIT_FSIZE, limits.file_size),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_NOFILE, limits.open_files),
    ):
        if value is not None:
            resource.setrlimit(kind, (value, value))


def failed(error: BaseException, config: HarnessConfig | None = None) -> messages.Failed:
    """An exception as the message that reports it; `config` tells which lines are the recipe's."""
    failure = error if isinstance(error, Failure) else _as_failure(error)
    hint = failure.hint
    if config and config.sandboxed and failure.kind in EXPLAINED:
        hint = sandbox_hint(error, config.files) or hint
    return messages.Failed(
        kind=failure.kind,
        message=_clean(failure.message)[:4_000],
        hint=hint and _clean(hint)[:1_000],
        traceback=_clean(recipe_trace(error, config.job_folder) if config else "")[-8_000:],
    )


def _as_failure(error: BaseException) -> Failure:
    message = f"{type(error).__name__}: {error}"
    if is_memory_error(error):
        return Failure("memory", message, "ask for more memory_mb, or need less")
    return Failure("exception", message)


def _clean(text: str) -> str:
    """Text that UTF-8 can write: a recipe's messages may hold lone surrogates."""
    return text.encode(errors="replace").decode()


def is_memory_error(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(word in str(error) for word in MEMORY_WORDS)
    )


if __name__ == "__main__":
    run_harness()
