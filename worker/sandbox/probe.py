"""Whether a program of ours computes in the sandbox: when a stranger's did not, who is to blame?"""

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from contracts.errors import UserError
from contracts.strict_json import read_json
from worker.driver.nvml import GpuName
from worker.sandbox.bubblewrap import Sandbox
from worker.sandbox.gpus import granted, training_environment
from worker.sandbox.hiding.view import Program
from worker.training.cpu import with_processor
from worker.training.environment import Device
from worker.training.failures import Failure

PROBE_SECONDS = 180.0  # the first use of a GPU after its driver was loaded may take a minute
PROGRAMS: dict[Device, str] = {
    "cpu": "import worker.training.harness, os; os._exit(0)",  # torch takes half a second to end by itself
    "cuda": "import worker.training.harness, os, torch; x = torch.ones(64, device='cuda'); assert float(x @ x) == 64; "
    "os._exit(0)",
}


NUMERICS = """
import os
import sys
from contracts.strict_json import write_json
from worker.training.numerics import numerics
from worker.training.starting.seeding import pin
pin(1)
print(write_json(numerics(sys.argv[1])), flush=True)
os._exit(0)
"""


def measured_numerics(runtime: Sandbox, device: Device, gpus: Sequence[GpuName] = ()) -> dict[str, Any]:
    """What decides the bits here, as a run of one thread in this sandbox says it. Raises Failure("machine")."""
    process = None
    try:
        cards = granted(gpus) if device == "cuda" else ()
        argv = [sys.executable, "-c", NUMERICS, device]
        process = runtime.start(Program(argv, training_environment(1, cards, "/tmp"), gpus=cards))
        said, complaint = process.communicate(timeout=PROBE_SECONDS)
        told = read_json(said) if process.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Failure("machine", f"this machine's numerics class can't be measured: {error}") from error
    finally:
        if process is not None:
            with contextlib.suppress(OSError):
                runtime.end(process)
    if not isinstance(told, dict):
        raise Failure(
            "machine", f"this machine's numerics class can't be measured: {complaint.decode(errors='replace')[-500:]}"
        )
    return with_processor(told)


def compute_problem(runtime: Sandbox, device: Device, gpus: Sequence[GpuName] = ()) -> str | None:
    """Why nothing can be trained here: runs the training process's packages on the device, inside; None if it works."""
    process = None
    try:
        cards = granted(gpus) if device == "cuda" else ()
        argv = [sys.executable, "-c", PROGRAMS[device]]
        process = runtime.start(Program(argv, training_environment(1, cards, "/tmp"), gpus=cards))
        _, said = process.communicate(timeout=PROBE_SECONDS)
    except UserError as error:
        return error.message
    except subprocess.TimeoutExpired:
        return f"a program of our own does not come to an end within {PROBE_SECONDS:.0f} s"
    except OSError as error:
        return f"a program of our own does not start: {error}"
    finally:
        if process is not None:
            with contextlib.suppress(OSError):
                runtime.end(process)
    if process.returncode == 0:
        return None
    reason = (said.decode(errors="replace").strip() or f"exit code {process.returncode}").splitlines()[-1]
    return f"a program of our own fails here, too: {reason[:500]}"
