"""What changes the bits of training, and what does not: one stretch of three recipes, trained in the sandbox with one
thing changed at a time, against the same stretch with nothing changed.

A figure is the first step that differs; 0: the whole stretch is the same, state and every step. -1: it does not run.
docs/numerics.md has the table that came of it, and what follows from it for the numerics class.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from contracts.errors import UserError
from contracts.job.file import pack, parse_job_file
from contracts.job.spec import JobSpec
from contracts.statefile import file_state_root
from tests.bench import Figure, report
from tests.support.recipes import toy_job
from worker import recipes
from worker.machine.hardware import answered
from worker.sandbox.bubblewrap import bubblewrap_problem
from worker.sandbox.hiding.view import Program
from worker.sandbox.runner import Runner
from worker.training.messages import Checkpoint

STEPS = 12
UNSET = ""
# By name: threads, and variables of the training process; UNSET takes one away.
VARIATIONS: dict[str, tuple[int, Mapping[str, str]]] = {
    "another process": (1, {}),
    "PYTHONHASHSEED=1": (1, {"PYTHONHASHSEED": "1"}),
    "MALLOC_MMAP_THRESHOLD_=1000000000": (1, {"MALLOC_MMAP_THRESHOLD_": "1000000000"}),
    "MALLOC_PERTURB_=165": (1, {"MALLOC_PERTURB_": "165"}),
    "threads=2": (2, {}),
    "threads=4": (4, {}),
    "threads=4, two runs": (-4, {}),
    "ATEN_CPU_CAPABILITY=default": (1, {"ATEN_CPU_CAPABILITY": "default"}),
    "ATEN_CPU_CAPABILITY=avx2": (1, {"ATEN_CPU_CAPABILITY": "avx2"}),
    "ATEN_CPU_CAPABILITY=avx512": (1, {"ATEN_CPU_CAPABILITY": "avx512"}),
    "MKL_ENABLE_INSTRUCTIONS=AVX2": (1, {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
    "MKL_ENABLE_INSTRUCTIONS=SSE4_2": (1, {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
    "MKL_CBWR unset": (1, {"MKL_CBWR": UNSET}),
    "MKL_CBWR=COMPATIBLE": (1, {"MKL_CBWR": "COMPATIBLE"}),
    "MKL_CBWR=AVX2": (1, {"MKL_CBWR": "AVX2"}),
    "ONEDNN_MAX_CPU_ISA=AVX2": (1, {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "ONEDNN_MAX_CPU_ISA=SSE41": (1, {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    "NPY_DISABLE_CPU_FEATURES": (1, {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX2 FMA3"}),
    "LANG=de_DE.UTF-8, TZ=Asia/Tokyo": (1, {"LANG": "de_DE.UTF-8", "TZ": "Asia/Tokyo"}),
}


class VariedRunner(Runner):
    """With other variables than a worker gives."""

    def __init__(self, variables: Mapping[str, str], *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._changes = variables

    def _program(self) -> Program:
        program = super()._program()
        variables = {**program.variables, **self._changes}
        return replace(program, variables={name: value for name, value in variables.items() if value != UNSET})


def main(json: bool) -> None:
    if problem := bubblewrap_problem():
        sys.exit(f"bench numerics: {problem}")
    report(measure(), json)


def measure() -> Iterator[Figure]:
    for name in ("digits", "chargpt", "convolution"):
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home)
            spec = job(name, folder / "job")
            usual = {threads: stretch(spec, folder, threads, {}) for threads in (1, 4)}
            for what, (threads, variables) in VARIATIONS.items():
                against = usual[1] if threads > 0 else usual[-threads]
                try:
                    found = first_unlike(against, stretch(spec, folder, abs(threads), variables))
                except UserError:
                    found = -1
                yield f"{name}: {what}", found, "step"


def job(name: str, folder: Path) -> JobSpec:
    """One checkpoint of STEPS steps; puts its files into the folder."""
    if name == "convolution":
        source = Path(__file__).with_name("_convolution.py")
        return toy_job(folder, "Convolution", source=source, steps=STEPS, checkpoint_every=STEPS)
    shutil.copytree(recipes.FOLDER / name, folder)
    if name == "digits":
        sys.path.insert(0, str(folder))
        from make_data import make_data  # type: ignore[import-not-found]

        make_data(folder)
    else:
        (folder / "corpus.txt").write_bytes(bytes(range(32, 127)) * 4096)
    given = parse_job_file((folder / "job.yaml").read_text())
    return pack(given.model_copy(update={"steps": STEPS, "checkpoint_every": STEPS}), folder)


def stretch(spec: JobSpec, folder: Path, threads: int, variables: Mapping[str, str]) -> list[bytes]:
    """The digest of each step, and the state's root. Raises Failure."""
    with VariedRunner(variables, spec, folder / "job", folder / "work", threads=threads) as run:
        for message in answered(run):
            if isinstance(message, Checkpoint):
                trace = folder / "work" / f"checkpoint-{message.index:05}.trace"
                taken = trace.read_bytes()
    state = folder / "work" / f"checkpoint-{spec.checkpoints:05}.safetensors"
    return [taken[at : at + 32] for at in range(0, len(taken), 32)] + [file_state_root(state)]


def first_unlike(one: list[bytes], other: list[bytes]) -> int:
    """The first step of two stretches that is not the same; 0 if none, and the state is the same, too."""
    return next((step for step, pair in enumerate(zip(one, other, strict=True), 1) if pair[0] != pair[1]), 0)
