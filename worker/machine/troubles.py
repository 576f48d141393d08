"""What a machine lacks of what its Ask sells: GPUs, sandbox, environment, disk. And how to mend it."""

import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from typing import Literal, NamedTuple

from contracts.program.extras import install_command
from contracts.settings import home
from contracts.types import MB
from worker.driver.nvml import GpuHealth, NoAnswer, named, read_gpus
from worker.driver.xids import XidListener
from worker.sandbox.bubblewrap import HOW_TO_MEND
from worker.sandbox.podman import chosen_sandbox, forget_problems
from worker.settings import ProviderSettings
from worker.training.environment import environment_id


class MachineTrouble(NamedTuple):
    of: Literal["gpu", "sandbox", "environment", "disk"]
    what: str
    mend: str
    dead: bool = False  # a GPU has gone, and with it what runs there


def gpu_trouble(settings: ProviderSettings) -> MachineTrouble | None:
    """Of the GPUs that are sold, as the driver sees them now. It may take long where a driver hangs."""
    if settings.device == "cpu":
        return None
    try:
        return judge_sold(read_gpus() or (), settings)
    except NoAnswer as error:
        return MachineTrouble("gpu", error.message, error.hint or "")


def xid_trouble(xids: XidListener) -> MachineTrouble | None:
    """After which a GPU has to be reset. It stays as long as `xids` do: no driver says when that was done."""
    xids.read()
    if fault := xids.fault:
        mend = f"{fault.saying.mend}; then start the agent again"
        return MachineTrouble("gpu", fault.sentence, mend, dead=True)
    return None


def judge_sold(gpus: Sequence[GpuHealth], settings: ProviderSettings) -> MachineTrouble | None:
    """Pure: the first reason why these GPUs of a machine are not what the Ask sells."""
    sold = settings.resources
    if not gpus:
        return MachineTrouble(
            "gpu", f"there is no GPU here; the Ask sells {sold.gpus}", "`nvidia-smi -L`; register anew"
        )
    for name in settings.gpu_names:
        gpu = named(gpus, name)
        if gpu is None:
            # One that is lost does not tell its UUID.
            lost = next((one for one in gpus if one.wrong and not one.uuid), None)
            if lost and lost.wrong:
                what = f"GPU {name} is not there: {lost.label} {lost.wrong.what}"
                return MachineTrouble("gpu", what, lost.wrong.mend, lost.dead)
            there = ", ".join(f"{one.index}: {one.name} ({one.uuid})" for one in gpus)
            what = f"GPU {name} is not there, which the Ask sells; there is {there}"
            return MachineTrouble("gpu", what, "`nvidia-smi -L` shows them; or register anew", dead=True)
        if gpu.wrong:
            return MachineTrouble("gpu", f"{gpu.label} {gpu.wrong.what}", gpu.wrong.mend, gpu.dead)
        if gpu.name != sold.device or gpu.memory_mb < sold.vram_mb:
            what = f"{gpu.label} is {gpu.name} with {gpu.memory_mb} MB; the Ask sells {sold.device}, {sold.vram_mb} MB"
            return MachineTrouble("gpu", what, "register anew")
    return None


def sandbox_trouble(settings: ProviderSettings) -> MachineTrouble | None:
    """Uses the sandbox once, if the Ask promises one."""
    if settings.sold().sandbox == "none":
        return None
    runtime = chosen_sandbox(settings.sandbox, settings.image)
    forget_problems()  # what worked an hour ago may not work now, and the other way round
    problem = runtime.problem()
    return (problem and MachineTrouble("sandbox", problem, HOW_TO_MEND[runtime.kind])) or None


def environment_trouble(settings: ProviderSettings) -> MachineTrouble | None:
    """Of the packages that recipes are promised."""
    offered = settings.resources.environments
    try:
        here = environment_id()
    except PackageNotFoundError as error:
        return MachineTrouble("environment", str(error), install_command("worker"))
    if here in offered:
        return None
    what = f"the environment here is {here}; the Ask offers {', '.join(offered)}"
    return MachineTrouble("environment", what, "register anew: it offers what is here")


def disk_trouble(settings: ProviderSettings) -> MachineTrouble | None:
    """Of the room for one more job."""
    folder = home()
    try:
        free = shutil.disk_usage(folder).free // MB
    except OSError as error:
        return MachineTrouble("disk", f"can't look at {folder}: {error}", "is the disk still there?")
    if free >= settings.disk_mb:
        return None
    what = f"{free:,} MB are free in {folder}; a job may take {settings.disk_mb:,} MB"
    return MachineTrouble("disk", what, "free some, or set a smaller disk_mb in provider.toml")


def by_uuid(settings: ProviderSettings) -> ProviderSettings:
    """The same lot with its GPUs named by UUID: an index is another card's when one is lost or added.

    As it was while the driver does not answer.
    """
    if settings.device == "cpu":
        return settings
    try:
        gpus = read_gpus() or ()
    except NoAnswer:
        return settings
    found = (named(gpus, name) for name in settings.gpu_names)
    names = tuple((gpu and gpu.uuid) or name for gpu, name in zip(found, settings.gpu_names, strict=True))
    return settings.model_copy(update={"gpus": names})
