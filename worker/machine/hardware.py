"""What this machine is, and how fast it really trains."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from contracts.commitment import canonical_hash
from contracts.job.file import pack, parse_job_file
from contracts.job.spec import MAX_CHECKPOINTS, JobSpec
from contracts.types import MB, SECONDS_PER_HOUR, UNIT_FLOPS
from worker import recipes
from worker.driver.nvml import GpuHealth, GpuName, NoAnswer, read_gpus
from worker.sandbox.runner import Runner
from worker.training.cpu import cpu_model
from worker.training.environment import Device
from worker.training.messages import Checkpoint, Failed, Message, Ready, Stepped


@dataclass(frozen=True)
class Processor:
    """A device that trains: a GPU as NVML reports it, or the CPU where there is none."""

    kind: Device
    model: str
    memory_mb: int
    power_limit_watts: float | None = None
    uuid: str | None = None
    index: int | None = None  # NVML's
    works: bool = True
    part: bool = False  # an instance of a card that is split by MIG


@dataclass(frozen=True)
class Machine:
    processors: tuple[Processor, ...]
    cpu: str
    cores: int  # physical
    threads: int
    memory_mb: int
    driver: str | None = None
    trouble: str | None = None  # why GPUs that should be there are not, or do not work

    def hash(self) -> bytes:
        """One for each machine that differs in any of it."""
        return canonical_hash(asdict(self))

    @property
    def gpus(self) -> tuple[Processor, ...]:
        return tuple(one for one in self.processors if one.kind == "cuda")

    def gpu(self, name: GpuName) -> Processor | None:
        """By UUID or by index; None if it is not there."""
        for index, one in enumerate(self.gpus):
            if name in (one.uuid, index if one.index is None else one.index):
                return one
        return None


@dataclass(frozen=True)
class Throughput:
    """Delivered training throughput, in work units (MFLOP) per hour."""

    units_per_hour: int  # over all the time measured
    slowest: int  # in the slowest fifth of it
    fastest: int
    steps: int
    seconds: float

    @property
    def spread(self) -> float:
        """0.1 means that the fastest and the slowest fifth were 10 % of the mean apart."""
        return (self.fastest - self.slowest) / self.units_per_hour


def probe() -> Machine:
    """The machine's GPUs by NVML; without one, its CPU is what trains. What keeps GPUs from working is `trouble`."""
    memory_mb = psutil.virtual_memory().total // MB
    trouble: str | None = None
    try:
        gpus = read_gpus() or ()
    except NoAnswer as error:
        gpus, trouble = (), f"{error.message} ({error.hint})"
    broken = [f"{gpu.label} {gpu.wrong.what} ({gpu.wrong.mend})" for gpu in gpus if gpu.wrong]
    cpu = cpu_model()
    return Machine(
        processors=tuple(map(_processor, gpus)) or (Processor("cpu", cpu, memory_mb),),
        cpu=cpu,
        cores=psutil.cpu_count(logical=False) or 1,
        threads=psutil.cpu_count() or 1,
        memory_mb=memory_mb,
        driver=gpus[0].driver if gpus else None,
        trouble=trouble or "; ".join(broken) or None,
    )


def _processor(gpu: GpuHealth) -> Processor:
    return Processor(
        kind="cuda",
        model=gpu.name,
        memory_mb=gpu.memory_mb,
        power_limit_watts=gpu.watts,
        uuid=gpu.uuid or None,
        index=gpu.index,
        works=gpu.wrong is None,
        part=gpu.instance is not None,
    )


# The shipped GPT, at a size that keeps the device busy.
SIZES: dict[Device, dict[str, int]] = {
    "cpu": {"width": 128, "layers": 4, "heads": 4, "context": 128, "batch_size": 16},
    "cuda": {"width": 768, "layers": 8, "heads": 12, "context": 512, "batch_size": 16},
}
WARM_UP = 3  # steps
WINDOWS = 5  # into which the measured time is cut, for the spread


def measure_throughput(
    seconds: float = 20, *, device: Device = "cpu", threads: int = 1, gpus: tuple[GpuName, ...] = ()
) -> Throughput:
    """Trains the shipped GPT for about `seconds`, as any job: sandbox, digests and checkpoints included.

    Raises Failure if it does not train.
    """
    with tempfile.TemporaryDirectory() as folder:
        spec = benchmark_job(Path(folder), device)
        flops, arrivals = _train_for(seconds, spec, Path(folder), device, threads, gpus)
    return _throughput(flops, arrivals)


def benchmark_job(folder: Path, device: Device) -> JobSpec:
    """The job that a machine is measured by; puts its files into `folder`."""
    source = recipes.FOLDER / "chargpt"
    (folder / "recipe.py").write_bytes((source / "recipe.py").read_bytes())
    (folder / "corpus.txt").write_bytes(bytes(range(256)) * 256)
    job = parse_job_file((source / "job.yaml").read_text())
    endless = job.checkpoint_every * MAX_CHECKPOINTS
    return pack(job.model_copy(update={"config": job.config | SIZES[device], "steps": endless}), folder)


def _train_for(
    seconds: float, spec: JobSpec, folder: Path, device: Device, threads: int, gpus: tuple[GpuName, ...]
) -> tuple[int, list[float]]:
    """FLOPs of one step, and the times at which the steps after the warm-up were done."""
    flops, arrivals = 0, []
    runner = Runner(spec, folder, folder / "run", threads=threads, device=device, gpus=gpus, step_interval=0)
    with runner as run:
        for message in answered(run):
            match message:
                case Ready():
                    flops = message.flops
                case Stepped():
                    arrivals.append(time.monotonic())
                    measured = arrivals[WARM_UP:]
                    if len(measured) > 2 * WINDOWS and measured[-1] - measured[0] >= seconds:
                        return flops, measured
    raise AssertionError("an endless job ended")


def answered(run: Runner) -> Iterator[Message]:
    """What a run says to its end, each after what it waits for: its start, or that a checkpoint is taken. Raises
    Failure.
    """
    for message in run.messages():
        match message:
            case Ready():
                run.go()
            case Checkpoint():
                run.take(message)
            case Failed():
                raise message.failure()
        yield message


def _throughput(flops: int, arrivals: list[float]) -> Throughput:
    per_hour = flops / UNIT_FLOPS * SECONDS_PER_HOUR
    steps = len(arrivals) - 1
    cuts = [steps * window // WINDOWS for window in range(WINDOWS + 1)]
    rates = [per_hour * (end - start) / (arrivals[end] - arrivals[start]) for start, end in pairwise(cuts)]
    elapsed = arrivals[-1] - arrivals[0]
    return Throughput(
        units_per_hour=int(per_hour * steps / elapsed),
        slowest=int(min(rates)),
        fastest=int(max(rates)),
        steps=steps,
        seconds=elapsed,
    )
