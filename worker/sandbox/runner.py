"""Runs a job's recipe in a sandboxed process and passes on what it says. Nothing it says is trusted."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from contracts.job.spec import JobSpec
from worker.driver.nvml import GpuName
from worker.sandbox import bubblewrap
from worker.sandbox.bubblewrap import Sandbox
from worker.sandbox.gpus import granted, training_environment
from worker.sandbox.hiding.disguise import make_timeless
from worker.sandbox.hiding.variation import PLAIN, Variation
from worker.sandbox.hiding.view import JOB, OUTPUT, STATE, Program
from worker.sandbox.limits import MORE_MEMORY, Limits, check_usage, memory_exceeded, silence
from worker.sandbox.log import CappedLog
from worker.sandbox.network import with_small_buffers
from worker.sandbox.output import OutputFolder
from worker.training import messages
from worker.training.checkpoints import DIGEST_BYTES, TakenCheckpoint, check_trace, trace_name
from worker.training.cpu import with_processor
from worker.training.environment import Device, check_environment
from worker.training.failures import Failure, FailureKind
from worker.training.messages import MAX_LINE, Checkpoint, Command, Conversation, Failed, HarnessConfig, Message

POLL_SECONDS = 0.25
GRACE_SECONDS = 5.0  # to exit by itself after its last message
LOG_BYTES_PER_SECOND = 4 << 20  # more than that makes the recipe wait, and not this machine work
MEMORY_MARKS = ("MemoryError", "bad_alloc", "out of memory")


class Runner:
    """One training run: checkpoints `first` .. `last` of a job.

        with Runner(spec, job_folder, work_folder) as run:
            for message in run.messages():
                match message:
                    case Ready(): run.go()
                    case Checkpoint(): taken = run.take(message)
                    case Failed(): ...

    The last message is Failed, Stopped or Done. Messages may be read in any one thread; go, stop, take and kill may be
    called from any. Leaving the context kills whatever still runs. `sandbox` says what the recipe runs in.
    """

    def __init__(
        self,
        spec: JobSpec,
        job_folder: Path,
        work_folder: Path,
        *,
        first: int = 1,
        last: int | None = None,
        state: Path | None = None,
        threads: int = 1,
        device: Device = "cpu",
        gpus: Sequence[GpuName] = (),
        limits: Limits | None = None,
        runtime: Sandbox | None = None,
        trusted: bool = False,
        printed: Callable[[bytes], None] = lambda data: None,
        keep_log: bool = True,
        ahead: int = 1,
        step_interval: float = 0.5,
        evaluate: bool = True,
        variation: Variation = PLAIN,
    ) -> None:
        """`job_folder` has the job's files under their paths; checkpoints and log go to `work_folder`.

        `state` is the checkpoint to go on from (number first - 1, or an earlier job's last). `ahead`: how many
        checkpoints that have not been taken training may run ahead of. `gpus`: those that a run on "cuda" is granted;
        empty: all. `runtime`: a sandbox other than bubblewrap. `printed` hears what the recipe prints; without
        `keep_log` that stands in no file. `trusted` is this machine's owner's word that a recipe needs no sandbox.
        `variation`: of what a sandbox tells.
        """
        self.spec, self.limits = spec, limits or Limits()
        self._watched = self.limits  # of what the worker looks at
        self.first, self.last = first, spec.checkpoints if last is None else last
        check_environment(spec.environment)
        recipe_file = job_folder / spec.recipe_path
        self._sandbox = bubblewrap.sandbox_for(recipe_file, runtime, trusted=trusted)
        self.sandbox: bubblewrap.SandboxKind = self._sandbox.kind
        self._gpus = granted(gpus) if device == "cuda" else ()
        self.folder = work_folder.resolve()
        self._output = OutputFolder(self.folder)
        self._log = CappedLog(self.folder / "log.txt" if keep_log else None, self.limits.log_bytes)
        self._printed = printed
        self._job_folder, self._state = job_folder.resolve(), state
        self._threads, self._device, self._trusted, self._ahead = threads, device, trusted, ahead
        self._step_interval, self._evaluate, self._variation = step_interval, evaluate, variation
        self._conversation = Conversation(
            first=self.first,
            last=self.last,
            checkpoint_every=spec.checkpoint_every,
            start_step=spec.start_step or 0,
        )
        self._heard: queue.Queue[Message] = queue.Queue(maxsize=1_000)
        self._ending = threading.Lock()
        self._end: Message | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._writing = threading.Lock()
        self._started = threading.Event()
        self._due: float | None = time.monotonic() + self.limits.start_seconds  # for its next message
        self._went = False  # training may begin
        self._made = self._taken = self.first - 1  # numbers of checkpoints
        # Linux lets a child die with its parent *thread*: so one that outlives the child has to start it.
        self._supervisor = threading.Thread(target=self._supervise, name="training supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._supervisor.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._supervisor.join()
        self._output.remove()

    # What the worker does

    def messages(self) -> Iterator[Message]:
        """All messages, until the last one."""
        while True:
            message = self._heard.get()
            yield message
            if isinstance(message, messages.Terminal):
                return

    def next_message(self, timeout: float | None = None) -> Message | None:
        """The next message, or None if none came in `timeout` seconds. Don't call it after the last one."""
        try:
            return self._heard.get(timeout=timeout)
        except queue.Empty:
            return None

    def go(self) -> None:
        """Starts training, once the process is ready."""
        self._went = True
        self._expect_message()
        self._tell(Command(type="go"))

    def stop(self) -> None:
        """Asks the process to stop after this step, or after its checkpoint if one is due."""
        self._tell(Command(type="stop"))
        self._expect_message()

    def take(self, message: Checkpoint, *, go_on: bool = True) -> TakenCheckpoint:
        """Copies a checkpoint to where the process can't reach it, and lets the process `go_on`.

        Raises Failure("protocol") if it is not what the message says, and kills the process; OSError if this machine's
        disk is full: then it may be tried again.
        """
        try:
            path = self._output.take(message.path, self.limits.disk_mb << 20)
            trace_path = self._output.take(trace_name(message.index), DIGEST_BYTES * self.spec.checkpoint_every)
            root = bytes.fromhex(message.trace_root[2:])
            check_trace(trace_path, steps=self.spec.checkpoint_every, root=root)
            self._output.drop(message.path, trace_path.name)
        except Failure as failure:
            for name in (message.path, trace_name(message.index)):
                (self.folder / name).unlink(missing_ok=True)
            self._fail(failure)
            raise
        if go_on:
            self.go_on(message.index)
        return TakenCheckpoint(message.index, message.step, path, trace_path, message.metrics, root, message.seconds)

    def go_on(self, index: int) -> None:
        """Lets the process train beyond checkpoint `index`, as far as it may run ahead of that."""
        self._taken = index
        self._expect_message()
        self._tell(Command(type="ack", index=index))

    def kill(self) -> None:
        """Ends the process and all that it started. Harmless if it has ended."""
        self._fail(Failure("exit", "the worker ended the training process"))

    def processes(self) -> list[psutil.Process]:
        """Those of the run, as far as this machine's owner can see them; empty before it starts."""
        return [] if self._process is None else self._sandbox.members(self._process)

    # What the supervising thread does

    def _supervise(self) -> None:
        try:
            process = self._start()
        except Exception as error:  # a bug of ours must end the run, not leave who waits for it hanging
            kind: FailureKind = "machine" if isinstance(error, OSError) else "exit"
            return self._fail(Failure(kind, f"can't start the training process: {error}"))
        finally:
            self._started.set()
        assert process.stdout and process.stderr
        readers = [
            threading.Thread(target=self._listen, args=(process.stdout,), daemon=True),
            threading.Thread(target=self._keep_log, args=(process.stderr,), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            self._watch(process)
        finally:
            self._sandbox.end(process)
            for reader in readers:
                reader.join(GRACE_SECONDS)
            self._log.close()
            self._finish(self._why_it_ended(process.returncode))
            if not any(reader.is_alive() for reader in readers):
                _close_pipes(process)
        return None

    def _start(self) -> subprocess.Popen[bytes]:
        process = self._sandbox.start(self._program())
        if self.sandbox == "bubblewrap":
            self._watched = with_small_buffers(process.pid, self.limits)
        self._process = process
        self._write(self._config().model_dump_json().encode())
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)  # who does not read what it is told shall not hold us up
        return process

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Returns when the process has ended, or must be killed."""
        while process.poll() is None:
            if self._end is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0 if isinstance(self._end, Failed) else GRACE_SECONDS)
                return None
            if self._due is not None and time.monotonic() > self._due:
                return self._fail(silence(self.limits, trains=self._went))
            if self._sandbox.exceeded_memory():
                return self._fail(memory_exceeded(self.limits))
            try:
                check_usage(self._sandbox.members(process), self._output.path, self._watched)
            except Failure as failure:
                return self._fail(failure)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
        return None

    def _listen(self, pipe: IO[bytes]) -> None:
        try:
            while self._end is None and (line := pipe.readline(MAX_LINE + 1)):
                if len(line) > MAX_LINE:
                    raise Failure("protocol", f"the training process sent a line over {MAX_LINE} bytes")
                message = self._conversation.hear(line)
                if isinstance(message, Failed) and self._sandbox.exceeded_memory():
                    raise memory_exceeded(self.limits)  # what it says then is what came of that
                if isinstance(message, messages.Terminal):
                    return self._finish(message)
                if isinstance(message, Checkpoint):
                    self._made = message.index
                if isinstance(message, messages.Measured):
                    # The processor's name: inside, nobody is told it. What comes next, the start's time is for.
                    message = messages.Measured(numerics=with_processor(message.numerics))
                else:
                    self._expect_message()
                if isinstance(message, messages.Ready):
                    self._due = None
                self._pass_on(message)
        except Failure as failure:
            self._fail(failure)
        return None

    def _pass_on(self, message: Message) -> None:
        while self._end is None:
            with contextlib.suppress(queue.Full):
                return self._heard.put(message, timeout=POLL_SECONDS)
        return None

    def _keep_log(self, pipe: IO[bytes]) -> None:
        while data := os.read(pipe.fileno(), 65536):
            self._log.write(data)
            self._printed(data)
            time.sleep(len(data) / LOG_BYTES_PER_SECOND)

    def _expect_message(self) -> None:
        waits_for_us = self._made - self._taken > self._ahead
        self._due = None if waits_for_us else time.monotonic() + self.limits.hang_seconds

    def _tell(self, command: Command) -> None:
        self._write(command.model_dump_json().encode())

    def _write(self, line: bytes) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            with self._writing:
                os.write(self._process.stdin.fileno(), line + b"\n")
        except BlockingIOError:
            self._fail(Failure("protocol", "the training process does not listen"))
        except (OSError, ValueError):
            pass  # it has ended: the supervisor will notice

    def _fail(self, failure: Failure) -> None:
        self._finish(_as_failed(failure))

    def _finish(self, message: Message) -> None:
        """Takes the first last message there is."""
        with self._ending:
            if self._end is not None:
                return None
            self._end = message
        while True:
            try:
                return self._heard.put_nowait(message)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._heard.get_nowait()

    def _program(self) -> Program:
        inside = self.sandbox != "none"
        make_timeless(self._output.path)
        inputs = {JOB / file: self._job_folder / file for file in self.spec.files} if inside else {}
        if self._state is not None and inside:
            inputs[STATE] = self._state.resolve()
            make_timeless(inputs[STATE])
        return Program(
            [sys.executable, "-m", "worker.training.harness"],
            training_environment(self._threads, self._gpus, "/tmp" if inside else str(self._output.path)),
            inputs,
            self._output.path,
            self._gpus,
            self.limits,
            self._threads,
            self._variation,
        )

    def _config(self) -> HarnessConfig:
        inside = self.sandbox != "none"
        state = self._state and (STATE if inside else self._state.resolve())
        return HarnessConfig(
            job_folder=JOB if inside else self._job_folder,
            output_folder=OUTPUT if inside else self._output.path,
            state=state,
            recipe=self.spec.recipe,
            config=self.spec.hashed_config,
            files=sorted(self.spec.files),
            seed=self.spec.seed,
            checkpoint_every=self.spec.checkpoint_every,
            first=self.first,
            last=self.last,
            start_step=self.spec.start_step or 0,
            weights=self.spec.start,
            threads=self._threads,
            device=self._device,
            sandboxed=inside,
            # A shipped recipe beside a stranger's torch.py is a stranger's recipe.
            sibling_imports=inside or self._trusted,
            ahead=self._ahead,
            step_interval=self._step_interval,
            evaluate=self._evaluate,
            limits=self.limits.for_process(count_processes=inside),
        )

    def _why_it_ended(self, code: int) -> Failed:
        """A process that said no last word: what its exit code and its log tell."""
        tail = self._log.tail()
        killed = code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        # A container's limit makes the kernel kill; under bubblewrap it is `check_usage` that ends what is too big.
        if self._sandbox.exceeded_memory():
            return _as_failed(memory_exceeded(self.limits))
        if any(mark in tail for mark in MEMORY_MARKS) or (killed and self.sandbox == "podman"):
            message = f"the training process ran out of memory (code {code})"
            return Failed(kind="memory", message=message, hint=MORE_MEMORY)
        if killed:
            hint = "see whether this machine ran out of memory"
            return Failed(kind="killed", message=f"something killed the training process (code {code})", hint=hint)
        if code in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ):
            return Failed(kind="disk", message=f"a file grew over {self.limits.disk_mb} MB")
        last_line = next((line for line in reversed(tail.splitlines()) if line.strip()), "nothing in its log")
        return Failed(kind="exit", message=f"the training process ended with code {code}: {last_line[:500]}")


def _as_failed(failure: Failure) -> Failed:
    return Failed(kind=failure.kind, message=failure.message[:4_000], hint=failure.hint)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):  # closing flushes what could not be written
                pipe.close()
