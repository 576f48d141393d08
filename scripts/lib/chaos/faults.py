"""Kinds of bad luck. Each does its harm, and undoes what does not pass by itself."""

import contextlib
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from scripts.lib.chaos.world import World

WAIT_FOR_SANDBOX = 15.0  # seconds


class LeftOut(Exception):
    """This kind of bad luck can't be had now; says why."""


Fault = Callable[[World, random.Random], str]  # returns what it did


def kill_market(world: World, luck: random.Random) -> str:
    return kill_service(world, luck, "market")


def kill_approver(world: World, luck: random.Random) -> str:
    return kill_service(world, luck, "approver")


def kill_worker(world: World, luck: random.Random) -> str:
    return kill_service(world, luck, luck.choice(world.providers))


def kill_service(world: World, luck: random.Random, service: str) -> str:
    world.kill(service)
    pause = luck.choice((0.0, luck.uniform(0, 4)))
    time.sleep(pause)
    return f"kill -9 of {service}, back after {pause:.1f} s"


def kill_sandbox(world: World, luck: random.Random) -> str:
    deadline = time.monotonic() + WAIT_FOR_SANDBOX
    while time.monotonic() < deadline:
        if running := world.sandboxes():
            with contextlib.suppress(psutil.NoSuchProcess):
                luck.choice(running).kill()
                return f"kill -9 of one of {len(running)} sandbox processes"
        time.sleep(0.1)
    raise LeftOut("no sandbox ran")


def kill_chain(world: World, luck: random.Random) -> str:
    """It comes back with what its last copy has: up to some seconds of transactions never happened."""
    kept = world.chain.save()
    time.sleep(luck.uniform(1, 6))
    newest = world.direct.w3.eth.block_number
    world.chain.kill()
    pause = luck.uniform(0, 2)
    time.sleep(pause)
    world.chain.restart()
    world.chain_died += 1
    return f"kill -9 of the chain, back after {pause:.1f} s without its last {newest - kept} blocks"


def jump_clock(world: World, luck: random.Random) -> str:
    seconds = luck.randint(3, 20)
    world.chain.jump(seconds)
    return f"the chain's clock jumps {seconds} s"


def refuse_market(world: World, luck: random.Random) -> str:
    seconds = luck.uniform(1, 5)
    world.market_door.refuse()
    time.sleep(seconds)
    world.market_door.restore()
    return f"connections to the market refused for {seconds:.1f} s"


def refuse_chain(world: World, luck: random.Random) -> str:
    seconds = luck.uniform(1, 5)
    world.chain_door.refuse()
    time.sleep(seconds)
    world.chain_door.restore()
    return f"connections to the chain refused for {seconds:.1f} s"


def freeze(world: World, luck: random.Random) -> str:
    """A process that does not know that time has passed."""
    service = luck.choice(tuple(world.services))
    process, seconds = world.process(service), luck.uniform(1, 6)
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.send_signal(signal.SIGCONT)
    return f"{service} frozen for {seconds:.1f} s"


def fill_disk(world: World, luck: random.Random) -> str:
    if not world.mounts:
        raise LeftOut("no small file system could be mounted")
    home = luck.choice(world.mounts)
    seconds = luck.uniform(2, 6)
    ballast = home / "ballast"
    _fill(ballast)
    time.sleep(seconds)
    ballast.unlink()
    return f"the disk of {home.name} full for {seconds:.1f} s"


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * min(1 << 20, max(4096, shutil.disk_usage(path.parent).free))):
                pass
        except OSError:
            pass  # full


ALL: Sequence[Fault] = (
    kill_market,
    kill_approver,
    kill_worker,
    kill_sandbox,
    kill_chain,
    refuse_chain,
    fill_disk,
    freeze,
    jump_clock,
    refuse_market,
)


def schedule(kinds: Sequence[Fault], events: int, luck: random.Random) -> list[Fault]:
    """Each kind as often as every other, in a random order."""
    faults = [kinds[number % len(kinds)] for number in range(events)]
    luck.shuffle(faults)
    return faults
