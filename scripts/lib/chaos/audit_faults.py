"""Bad luck of an audited market: its approver dies between two of its steps, an auditor at work, the arbiter."""

import random
import time
from collections.abc import Callable, Sequence

from scripts.lib.chaos import faults
from scripts.lib.chaos.audited import AuditedWorld
from scripts.lib.chaos.faults import (
    Fault,
    LeftOut,
    freeze,
    jump_clock,
    kill_market,
    kill_sandbox,
    kill_service,
    kill_worker,
    refuse_chain,
    refuse_market,
)
from scripts.lib.chaos.world import World

WAIT, PATIENCE = 60.0, 400.0  # seconds for the moment that a kind of bad luck strikes in; for the first challenge


def kill_approver_after_draw(world: World, luck: random.Random) -> str:
    return _kill_approver(world, "after a draw", lambda line: '"BlockFinal"' in line)


def kill_approver_after_order(world: World, luck: random.Random) -> str:
    return _kill_approver(world, "after the Bid of a replay", lambda line: '"ReplayOrdered"' in line)


def kill_approver_after_answer(world: World, luck: random.Random) -> str:
    return _kill_approver(world, "after an answer", lambda line: '"ReplayKept"' in line)


def kill_approver_after_challenge(world: World, luck: random.Random) -> str:
    return _kill_approver(world, "after a challenge", lambda line: '"ChallengeSent"' in line, PATIENCE)


def _kill_approver(world: World, moment: str, is_it: Callable[[str], bool], patience: float = WAIT) -> str:
    """As soon as such a line is on its disk. The next one is not: whatever it would have done is undone."""
    audited = _audited(world)
    before = sum(map(is_it, audited.audit_lines()))
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if sum(map(is_it, audited.audit_lines())) > before:
            world.kill("approver")
            return f"kill -9 of the approver {moment}"
        time.sleep(0.02)
    raise LeftOut(f"no approver to kill {moment}: there was none for {patience:.0f} s")


def kill_auditor(world: World, luck: random.Random) -> str:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if name := _audited(world).auditor_at_work():
            time.sleep(luck.uniform(0, 4))
            world.kill(name)
            time.sleep(pause := luck.choice((0.0, luck.uniform(0, 20))))
            return f"kill -9 of {name}, which replays, back after {pause:.1f} s"
        time.sleep(0.1)
    raise LeftOut(f"nobody replayed anything for {WAIT:.0f} s")


def kill_arbiter(world: World, luck: random.Random) -> str:
    return kill_service(world, luck, "arbiter")


def _audited(world: World) -> AuditedWorld:
    assert isinstance(world, AuditedWorld)
    return world


def schedule(events: int, luck: random.Random) -> list[Fault]:
    """As usual, but that a challenge is waited for first: the first job is the liar's, and later ones may not be."""
    usual = faults.schedule(ALL, events, luck)
    if kill_approver_after_challenge in usual:
        usual.remove(kill_approver_after_challenge)
        usual.insert(0, kill_approver_after_challenge)
    return usual


ALL: Sequence[Fault] = (
    kill_approver_after_challenge,
    kill_approver_after_draw,
    kill_approver_after_order,
    kill_approver_after_answer,
    kill_auditor,
    kill_arbiter,
    kill_market,
    kill_worker,
    kill_sandbox,
    refuse_chain,
    refuse_market,
    freeze,
    jump_clock,
)
