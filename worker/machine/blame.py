"""Whose trouble it is that training ended: the recipe's, or this machine's. What the process said is not asked."""

from contracts.errors import UserError
from worker.driver.nvml import NoAnswer, named, read_gpus
from worker.driver.xids import XidListener, with_xids
from worker.machine.troubles import disk_trouble, environment_trouble, gpu_trouble, sandbox_trouble
from worker.sandbox.bubblewrap import Bare
from worker.sandbox.podman import chosen_sandbox
from worker.sandbox.probe import compute_problem
from worker.settings import ProviderSettings
from worker.training.failures import Failure

FREE_SHARE = 0.9  # of the memory that the Ask sells, which a GPU has free when nobody uses it
SELF_MADE = ("nan", "units", "protocol", "processes")  # kinds of failure that no broken machine leads to


def judged(error: UserError, settings: ProviderSettings, xids: XidListener, since: float, *, began: bool) -> UserError:
    """The same error, or Failure("machine") if a look at this machine finds a reason. Takes seconds.

    `since`: when its training began (monotonic); Xids of then that may be the recipe's own are named in the message.
    `began`: the recipe's process had said that it is ready to train.
    """
    if isinstance(error, Failure) and error.kind == "machine":
        return error
    xids.read()
    heard = xids.since(since)
    if fault := xids.fault or next((xid for xid in heard if xid.saying.blames == "once"), None):
        return Failure("machine", f"{fault.sentence}. What came of it: {error.message}", fault.saying.mend)
    if isinstance(error, Failure) and error.kind not in SELF_MADE and (found := _machines(error, settings, began)):
        return found
    error.message = with_xids(error.message, heard)
    return error


def _machines(error: Failure, settings: ProviderSettings, began: bool) -> Failure | None:
    """What a look at this machine finds."""
    looks = [disk_trouble] if error.kind == "disk" else [gpu_trouble, sandbox_trouble, environment_trouble]
    for look in looks:
        if trouble := look(settings):
            return Failure("machine", f"{trouble.what}. What came of it: {error.message}", trouble.mend)
    if error.kind == "memory" and (taken := _taken_memory(settings)):
        return Failure("machine", f"{taken}. What came of it: {error.message}", "end other programs on the GPU")
    if error.kind != "disk" and (settings.device == "cuda" or not began):
        runtime = chosen_sandbox(settings.sandbox, settings.image)
        problem = compute_problem(Bare() if runtime.problem() else runtime, settings.device, settings.gpu_names)
        if problem:
            what = f"{problem}. What came of it: {error.message}"
            return Failure("machine", what, "`gpumarket provider selftest` looks at all of this machine")
    return None


def _taken_memory(settings: ProviderSettings) -> str | None:
    """Which GPU's memory somebody else has, now that our process is gone."""
    if settings.device == "cpu":
        return None
    try:
        gpus = read_gpus() or ()
    except NoAnswer as error:
        return error.message
    for gpu in (found for name in settings.gpu_names if (found := named(gpus, name))):
        if not gpu.unified and gpu.free_mb < FREE_SHARE * settings.resources.vram_mb:
            return f"another program has {gpu.memory_mb - gpu.free_mb:,} of {gpu.memory_mb:,} MB of {gpu.label}"
    return None
