"""What `gpumarket provider register` finds out and does: rules, hardware, speed, stake."""

import platform
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog

from contracts.api.bodies import HOST, AskResources
from contracts.api.info import Info, RuleSet
from contracts.chain.client import Chain
from contracts.chain.deposits import deposit_steps
from contracts.chain.sending.sender import Sender
from contracts.commitment import canonical_hash, machine_class
from contracts.errors import UserError
from contracts.types import to_hex
from contracts.wallet import keys
from worker.driver.nvml import GpuName
from worker.lease.folder import Store
from worker.machine.hardware import Machine, Processor, Throughput, measure_throughput, probe
from worker.sandbox.bubblewrap import Bare, Bubblewrap, Sandbox
from worker.sandbox.podman import chosen_sandbox
from worker.sandbox.probe import measured_numerics
from worker.settings import ProviderSettings, write_provider_settings
from worker.training.environment import Device, environment_id, installed

DEFAULT_KEY = "provider"
DECIDED_BY = "numerics_of"  # in agent.json: what the class was measured of

log = structlog.get_logger()


class Needed(NamedTuple):
    """What a deposit takes, in the token's smallest unit."""

    deposit: int
    missing: int  # tokens that the key does not hold


def choose_rules(info: Info, name: str | None) -> RuleSet:
    """A rule-set of the market by name; its only one, or its first, without. Raises UserError."""
    known = {one.name: one for one in info.rules}
    if not known:
        raise UserError("the market offers no rules, so that no order can be signed")
    if name is not None and name not in known:
        raise UserError(f"the market has no rules named '{name}'", f"it has: {', '.join(known)}")
    chosen = known[name] if name else info.rules[0]
    chosen.check()
    return chosen


def check_environments(wanted: Sequence[str]) -> tuple[str, ...]:
    """The environments to offer: those wanted, which must be there. Raises UserError."""
    here = environment_id()
    for one in wanted:
        if one != here:
            raise UserError(f"the environment {one!r} is not installed here", f"this installation is {here!r}")
    return (here,)


def choose_gpus(machine: Machine, wanted: str | None) -> tuple[GpuName, ...]:
    """The GPUs to sell together: of indices or UUIDs such as "0,1"; all of the first one's model without a wish; none
    of them for "none", so that the CPU is sold.

    By UUID where NVML tells it. Raises UserError if there is no such GPU, it does not work, or they differ.
    """
    if wanted == "none":
        return ()
    names = ", ".join(f"{_number(machine, one)}: {one.model or 'unknown'}" for one in machine.gpus) or "none"
    if machine.trouble and (wanted is None or not machine.gpus):
        raise UserError(
            machine.trouble, "mend that; or choose others with --gpus, or sell the CPU alone with --gpus none"
        )
    if wanted is None:
        alike = [one for one in machine.gpus if one.model == machine.gpus[0].model]
        chosen = alike[:1] if alike and alike[0].part else alike
    else:
        chosen = [_chosen(machine, name.strip(), names) for name in wanted.split(",")]
    if broken := [one for one in chosen if not one.works]:
        raise UserError(f"--gpus: GPU {_number(machine, broken[0])} does not work: {machine.trouble}", "choose others")
    if len({one.model for one in chosen}) > 1:
        raise UserError(f"--gpus: those are of different models ({names})", "sell each model under a key of its own")
    if len(chosen) > 1 and any(one.part for one in chosen):
        raise UserError(
            "--gpus: a program can use one MIG instance at a time", "sell each under a key of its own; see lots"
        )
    chosen = sorted(chosen, key=lambda one: _number(machine, one))
    return tuple(dict.fromkeys(one.uuid or _number(machine, one) for one in chosen))


def _chosen(machine: Machine, name: str, names: str) -> Processor:
    if not re.fullmatch(r"\d{1,3}|(GPU|MIG)-[\w/-]+", name):
        raise UserError(
            f"--gpus: {name!r} is not a list of indices such as 0,1, nor of UUIDs", f"this machine has {names}"
        )
    found = machine.gpu(int(name) if name.isdigit() else name)
    if found is None:
        raise UserError(f"--gpus: there is no GPU {name} here", f"this machine has {names}")
    return found


def _number(machine: Machine, gpu: Processor) -> int:
    """NVML's index."""
    return machine.gpus.index(gpu) if gpu.index is None else gpu.index


def check_hosts(wanted: Sequence[str]) -> tuple[str, ...]:
    """Names of hosts to fetch jobs' files from, in lower case. Raises UserError."""
    for one in wanted:
        if not re.fullmatch(HOST, one.lower()):
            raise UserError(f"{one!r} is not a host's name", "without https:// and path, such as data.example.org")
    return tuple(sorted({one.lower() for one in wanted}))


def check_region(wanted: str) -> str:
    """In the form in which clients will write it; bids name regions exactly. Raises UserError."""
    if wanted and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", wanted):
        near = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")[:64] or "eu-de"
        raise UserError(f"--region: {wanted!r} is not lower-case letters, digits and dashes", f"--region {near}")
    return wanted


def describe(
    machine: Machine,
    environments: tuple[str, ...],
    region: str,
    gpus: tuple[GpuName, ...],
    memory_mb: int | None,
    hosts: tuple[str, ...] = (),
    runtime: Sandbox | None = None,
) -> AskResources:
    """One lot as its Ask sells it. Without `memory_mb` the machine's, or as much of it as of its GPUs.

    `runtime`: the sandbox that its owner chose, if it is not bubblewrap.
    """
    runtime = runtime or Bubblewrap()
    processors = [found for name in gpus if (found := machine.gpu(name))]
    if memory_mb is None:
        share = len(gpus) / len(machine.gpus) if gpus else 1
        memory_mb = int(machine.memory_mb * share)
    return AskResources(
        device=processors[0].model if processors else machine.cpu,
        gpus=len(gpus),
        vram_mb=min((one.memory_mb for one in processors), default=0),
        memory_mb=memory_mb,
        environments=environments,
        sandbox="none" if runtime.problem() else runtime.kind,
        region=region,
        hosts=hosts,
    )


def machine_numerics(runtime: Sandbox, gpus: Sequence[GpuName]) -> str:
    """The class of what this machine's training comes to, threads left out. Raises Failure("machine")."""
    sandbox = Bare() if runtime.problem() else runtime
    return to_hex(machine_class(measured_numerics(sandbox, "cuda" if gpus else "cpu", gpus)))


def what_decides_numerics(settings: ProviderSettings) -> str:
    """Another one if the class may have changed since: hardware, driver, packages, or the sandbox's image."""
    facts = {"machine": probe().hash().hex(), "packages": installed(), "libc": " ".join(platform.libc_ver())}
    return to_hex(canonical_hash(facts | {"sandbox": settings.sandbox, "image": settings.image or ""}))


def with_numerics_of_now(key: str, settings: ProviderSettings) -> ProviderSettings:
    """The settings, with another class than was registered if another is measured; then they are written, too.

    As after an upgrade of torch. Settings that tell none, of a registration long ago, stay so.
    """
    told, here = settings.resources.numerics, what_decides_numerics(settings)
    if told is None or Store(key).read_state().get(DECIDED_BY) == here:
        return settings
    gpus = settings.gpu_names if settings.device == "cuda" else ()
    now = machine_numerics(chosen_sandbox(settings.sandbox, settings.image), gpus)
    Store(key).write_state(**{DECIDED_BY: here})
    if now == told:
        return settings
    log.warning("agent.numerics_changed", before=told, now=now)
    resources = settings.resources.model_copy(update={"numerics": now})
    settings = settings.model_copy(update={"resources": resources})
    write_provider_settings(key, settings)
    return settings


def measured(
    seconds: float,
    device: Device,
    threads: int,
    gpus: tuple[GpuName, ...],
    watch: Callable[[], Any],
    tick: float = 0.1,
) -> Throughput:
    """`measure_throughput`, with calls of `watch` meanwhile."""
    found: list[Throughput | Exception] = []

    def measure() -> None:
        try:
            found.append(measure_throughput(seconds, device=device, threads=threads, gpus=gpus))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=measure, daemon=True)
    thread.start()
    while thread.is_alive():
        watch()
        thread.join(tick)
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def find_key(name: str | None) -> tuple[str, str | None]:
    """The key's name and address; no address if it has to be made."""
    known = keys.list_keys()
    if name is None:
        name = keys.choose(None) if known else DEFAULT_KEY
    return name, known.get(name)


def deposit_needed(chain: Chain, address: str | None, stake: int) -> Needed:
    """What is left to deposit so that `stake` is free in the escrow, or locked in leases from before."""
    if address is None:
        return Needed(stake, stake)
    deposit = max(0, stake - chain.account(address).free)
    return Needed(deposit, max(0, deposit - chain.token_balance(address)))


def how_to_get_tokens(chain: Chain, key: str, address: str | None, need: Needed) -> UserError:
    to = f"send them to {address}" if address else "make the key first (gpumarket wallet new) and send them to it"
    return UserError(
        f"key '{key}' is {chain.format_amount(need.missing)} short of its stake, of which "
        f"{chain.format_amount(need.deposit)} are to be deposited",
        f"{to}, with some of the chain's coin for gas; on a devnet: gpumarket wallet faucet --key {key}",
    )


def deposit_stake(sender: Sender, amount: int) -> None:
    """Moves tokens of the sender into its free balance. Raises EscrowError, UserError."""
    chain = sender.chain
    before = chain.account(sender.address).free
    sender.settle()  # a former try may have been killed while its deposit was on the way
    amount -= chain.account(sender.address).free - before
    if amount <= 0:
        return
    for step in deposit_steps(sender, amount):
        sender.send(step.call)
