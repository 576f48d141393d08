"""`gpumarket provider register`: from what somebody wants and what this machine is to provider.toml and a stake."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from contracts.amounts import format_amount, parse_positive
from contracts.api.bodies import AskResources
from contracts.api.client import MarketClient
from contracts.api.info import Info
from contracts.chain.client import Chain, connect
from contracts.chain.deposits import deposit_steps
from contracts.chain.sending.fees import format_ether
from contracts.chain.sending.sender import Sender
from contracts.cli.dry_run import not_sent, tell_not_sent
from contracts.cli.output import Output, OutputOption, PlainConsole, console, marked, say
from contracts.errors import UserError
from contracts.settings import home, load_settings
from contracts.strict_json import write_json
from contracts.types import SECONDS_PER_HOUR, ZERO_ADDRESS
from contracts.wallet import keys
from worker.agent.asks import check_market_terms, gas_today, make_ask
from worker.agent.fleet import check_lots, read_lots, registered
from worker.agent.gas import per_hour
from worker.cli.options import Key, ask_to_go_on, facts
from worker.driver.nvml import GpuName
from worker.lease.folder import Store
from worker.lease.schedule import LeaseTiming
from worker.machine.hardware import Machine, probe
from worker.onboarding import register as registration
from worker.onboarding.busy import Neighbours, check_memory, check_room_to_measure, free_mb, room_for_jobs
from worker.onboarding.prospects import Demand, read_demand
from worker.sandbox.bubblewrap import Sandbox
from worker.sandbox.podman import chosen_sandbox
from worker.settings import (
    DISK_MB,
    ProviderSettings,
    provider_settings_path,
    read_provider_settings,
    write_provider_settings,
)
from worker.training.environment import Device
from worker.training.failures import Failure


@dataclass(frozen=True)
class RegisterOptions:
    """What a registration goes by, as the command line says it; None: it says nothing."""

    key: str | None
    price: str | None
    stake: str | None
    max_stake: str | None
    market: str | None
    rules: str | None
    environments: list[str] | None
    region: str | None
    hosts: list[str] | None
    gpus: str | None
    threads: int
    memory_mb: int | None
    measure_seconds: float
    units_per_hour: int | None
    dry_run: bool
    output: Output


@dataclass(frozen=True)
class Registration:
    """What is to be written down and deposited, if nobody objects."""

    chain: Chain
    info: Info
    key: str
    address: str | None  # None: the key is not made yet
    need: registration.Needed
    settings: ProviderSettings
    demand: Demand | None  # what the market says of such machines
    busy: tuple[str, ...]  # who else used the machine while it was measured
    restart: bool  # an agent runs, by the settings of before


def register(
    key: Key = None,
    price: Annotated[str | None, typer.Option(help="Whole tokens per hour of training", metavar="TOKENS")] = None,
    stake: Annotated[
        str | None,
        typer.Option(help="Whole tokens to have in the escrow; what is missing is deposited", metavar="TOKENS"),
    ] = None,
    max_stake: Annotated[
        str | None, typer.Option(help="Most that one lease may lock; default: the stake", metavar="TOKENS")
    ] = None,
    market: Annotated[str | None, typer.Option(help="URL of the market")] = None,
    rules: Annotated[str | None, typer.Option(help="Name of the rules; default: the market's first")] = None,
    environment: Annotated[
        list[str] | None, typer.Option(help="Software environment to offer; may be repeated")
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="Where the machine is, such as eu-de; some jobs ask for it. Default: untold")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Host that jobs' files may be fetched from; may be repeated. Default: none", metavar="HOST"),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            help="GPUs that this key sells together, such as 0,1; `none`: the CPU. Default: all", metavar="GPUS"
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads to train with")] = 1,
    memory: Annotated[
        int | None, typer.Option(min=1, help="MB of memory to offer; default: the GPUs' share of it", metavar="MB")
    ] = None,
    measure_seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure the speed")] = 20,
    units_per_hour: Annotated[
        int | None, typer.Option(min=1, help="Work units per hour, instead of measuring them")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it all; make, send and write nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before the deposit")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Measure this machine, deposit the stake, and write down what to offer. `start` then posts it."""
    if output is Output.JSON and not (yes or dry_run):
        raise UserError("with `-o json` nobody is asked", "give --yes, or --dry-run to look at it first")
    options = RegisterOptions(
        key=key, price=price, stake=stake, max_stake=max_stake, market=market, rules=rules, environments=environment,
        region=region, hosts=allow_host, gpus=gpus, threads=threads, memory_mb=memory,
        measure_seconds=measure_seconds, units_per_hour=units_per_hour, dry_run=dry_run, output=output,
    )  # fmt: skip
    planned = _plan(options)
    if output is Output.TABLE:
        _show(planned)
    would_send = _would_send(planned) if dry_run else []
    path = None if dry_run else _carry_out(planned, yes)
    if output is Output.JSON:
        _print_json(planned, {"dry_run": True, "transactions": would_send} if dry_run else {"dry_run": False})
    else:
        tell_not_sent(would_send)
        _say_what_was_done(planned, path)


def _plan(options: RegisterOptions) -> Registration:
    """Raises UserError for all that would not work. A key that lacks tokens is made, so that somebody can send some."""
    config = load_settings(market_url=options.market)
    chain = connect(config)
    amount = partial(parse_positive, decimals=chain.decimals)
    price = None if options.price is None else amount(options.price)
    if price is None and not sys.stdin.isatty():
        raise UserError(
            "--price is missing", "give whole tokens, such as --price 1.5; `provider estimate` suggests one"
        )
    staked = amount(_asked(options.stake, "--stake", "Stake in tokens"))
    environments = registration.check_environments(options.environments or [])
    market_url = config.require("market_url")
    with MarketClient(market_url) as client:
        info = client.info()
    rules = registration.choose_rules(info, options.rules)
    key, address = registration.find_key(options.key)
    need = registration.deposit_needed(chain, address, staked)
    if need.missing and not options.dry_run:
        raise registration.how_to_get_tokens(chain, key, address or _make_key(key), need)
    former = read_provider_settings(key) if provider_settings_path(key).exists() else None
    machine, gpus, resources = _describe_machine(options, environments, former)
    disk_mb = room_for_jobs(former.disk_mb if former else DISK_MB, chosen=former is not None)
    units, busy = (options.units_per_hour, []) if options.units_per_hour else _measure(options, gpus)
    demand = _demand(market_url, resources)
    settings = ProviderSettings(
        market_url=market_url,
        price_per_hour=price or amount(_asked_price(chain, demand, units)),
        units_per_hour=units,
        max_stake=amount(options.max_stake) if options.max_stake else staked,
        rules_name=rules.name,
        rules=rules.rules,
        resources=resources,
        device="cuda" if gpus else "cpu",
        gpus=gpus,
        threads=options.threads,
        disk_mb=disk_mb,
    )
    if former is not None:
        settings = settings.as_before(former)
    check_lots(read_lots([one for one in registered() if one != key]) | {key: settings}, machine)
    check_market_terms(info, chain, settings)
    restart = former is not None and Store(key).is_running()
    return Registration(chain, info, key, address, need, settings, demand, tuple(busy), restart)


def _describe_machine(
    options: RegisterOptions, environments: tuple[str, ...], former: ProviderSettings | None
) -> tuple[Machine, tuple[GpuName, ...], AskResources]:
    """The machine, which of its GPUs are sold, and how the Ask describes them. What is not told stays as before."""
    if former and options.hosts is None:
        hosts = former.resources.hosts
    else:
        hosts = registration.check_hosts(options.hosts or [])
    if former and options.region is None:
        region = former.resources.region
    else:
        region = registration.check_region(options.region or "")
    machine = probe()
    gpus = registration.choose_gpus(machine, options.gpus)
    runtime = chosen_sandbox(former.sandbox, former.image) if former else chosen_sandbox()
    resources = registration.describe(
        machine, environments, region, gpus, options.memory_mb, hosts=hosts, runtime=runtime
    )
    check_memory(resources.memory_mb)
    return machine, gpus, resources.model_copy(update={"numerics": _class_of(runtime, gpus)})


def _class_of(runtime: Sandbox, gpus: tuple[GpuName, ...]) -> str | None:
    """The numerics class that the Ask tells; none where it can't be measured, which is told."""
    try:
        return registration.machine_numerics(runtime, gpus)
    except Failure as failure:
        why = failure.message.strip().splitlines()[0].rstrip(": ")
        note = marked(
            "[yellow]Note:[/] {}. Jobs that name a class go to others. Register again when it is mended.", why
        )
        PlainConsole(stderr=True).print(note, highlight=False, soft_wrap=True)
        return None


def _measure(options: RegisterOptions, gpus: tuple[GpuName, ...]) -> tuple[int, list[str]]:
    """Units an hour, beside a bar on the terminal; and who else used the machine meanwhile."""
    beside = console if options.output is Output.TABLE else PlainConsole(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    seconds: float = options.measure_seconds
    device: Device = "cuda" if gpus else "cpu"
    check_room_to_measure(device)
    neighbours = Neighbours(gpus)
    with Progress(*columns, console=beside, transient=True) as progress:
        # Before the first measured step the process has to start and to warm up.
        task = progress.add_task("measuring the training speed", total=seconds + 5)
        began = time.monotonic()

        def watch() -> None:
            progress.update(task, completed=time.monotonic() - began)
            neighbours.look()

        found = registration.measured(seconds, device, options.threads, gpus, watch)
    spread = f"fastest and slowest fifth {found.spread:.0%} apart"
    beside.print(f"trains {_per_hour(found.units_per_hour)}, {spread}", highlight=False, soft_wrap=True)
    busy = list(neighbours.sentences())
    for sentence in busy:
        told = marked("[yellow]{}: the speed may be too low. Measure again when the machine is left alone[/]", sentence)
        beside.print(told, highlight=False, soft_wrap=True)
    return found.units_per_hour, busy


def _demand(market_url: str, resources: AskResources) -> Demand | None:
    """None if the market does not tell: nobody needs it to register."""
    try:
        with MarketClient(market_url, attempts=1) as market:
            return read_demand(market, resources.device, resources.gpus)
    except UserError:
        return None


def _asked_price(chain: Chain, demand: Demand | None, units_per_hour: int) -> str:
    """As somebody types it, with what the market suggests in its place."""
    suggested = demand and demand.suggestion(units_per_hour)
    question = f"Price in {chain.symbol} per hour of training"
    if not suggested:
        return str(typer.prompt(f"{question} (nobody offers a machine here to compare with)"))
    default = format_amount(suggested.price, chain.decimals)
    return str(typer.prompt(f"{question} ({suggested.source}; `provider estimate` tells more)", default=default))


def _asked(given: str | None, option: str, question: str) -> str:
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise UserError(f"{option} is missing", f"give it, such as {option} 1.5 (whole tokens)")
    return str(typer.prompt(question))


def _make_key(name: str) -> str:
    address = keys.create(name)
    say(f"made the key '{name}': {address}")
    return address


def _carry_out(planned: Registration, yes: bool) -> Path:
    """Deposits and writes, after a yes; where to."""
    if not yes:
        ask_to_go_on()
    if planned.need.deposit:
        registration.deposit_stake(Sender(planned.chain, keys.load(planned.key)), planned.need.deposit)
    decided_by = registration.what_decides_numerics(planned.settings)
    Store(planned.key).write_state(**{registration.DECIDED_BY: decided_by})
    return write_provider_settings(planned.key, planned.settings)


def _would_send(planned: Registration) -> list[dict[str, Any]]:
    """The deposit's transactions; none where tokens or the key are still missing. Asks for the key's password."""
    if planned.need.missing or not planned.need.deposit:
        return []
    sender = Sender(planned.chain, keys.load(planned.key), allowed=lambda: False)
    return not_sent(sender, deposit_steps(sender, planned.need.deposit))


def _print_json(planned: Registration, run: Mapping[str, Any]) -> None:
    suggested = planned.demand and planned.demand.suggestion(planned.settings.units_per_hour)
    told = {
        "key": planned.key,
        "provider": planned.address,
        **run,
        "deposit": str(planned.need.deposit),
        "missing": str(planned.need.missing),
        "suggested_price": str(suggested.price) if suggested else None,
        "busy": planned.busy,
        "restart": planned.restart,
        "offer": planned.settings.model_dump(mode="json"),
    }
    print(write_json(told, indent=2))


def _say_what_was_done(planned: Registration, path: Path | None) -> None:
    """`path`: None after a dry run."""
    if path is None:
        say("nothing was made, sent or written")
        return
    if planned.need.deposit:
        say(f"deposited {planned.chain.format_amount(planned.need.deposit)}")
    say(f"wrote {path}")
    if planned.restart:
        told = marked("[yellow]the agent of '{}' still runs by the settings of before: restart it[/]", planned.key)
        say(told)
        say("(Ctrl-C or SIGTERM, then `provider start`; as a service: systemctl restart gpumarket-provider)")
    else:
        say(f"next: gpumarket provider start --key {planned.key}   (posts the Ask, and works until you stop it)")


def _show(planned: Registration) -> None:
    say(facts(_ask_facts(planned), "The Ask that `gpumarket provider start` signs"))
    if planned.need.missing:  # a dry run
        error = registration.how_to_get_tokens(planned.chain, planned.key, planned.address, planned.need)
        say(marked("[yellow]{}[/]\n{}", error.message, error.hint))


def _ask_facts(planned: Registration) -> Mapping[str, str]:
    chain, settings, address = planned.chain, planned.settings, planned.address
    resources, rules = settings.resources, settings.rules
    page = chain.account(address).page if address else 0
    ask = make_ask(settings, address or ZERO_ADDRESS, planned.info, page, chain.now())
    runtime = chosen_sandbox(settings.sandbox, settings.image)
    problem = runtime.problem()
    sandboxed = runtime.kind if problem is None else f"none: {problem}. Only shipped recipes will run"
    deposit = planned.need.deposit
    return {
        "provider": f"{address or '(a new key)'}  (key '{planned.key}')",
        "machine": f"{resources.gpus} x {resources.device}, {resources.vram_mb} MB each"
        if resources.gpus
        else f"{resources.device}, {resources.memory_mb} MB, no GPU",
        "region": resources.region or "untold (--region)",
        "environment": ", ".join(resources.environments),
        "fetches files from": ", ".join(resources.hosts) or "the market only (--allow-host)",
        "sandbox": sandboxed,
        "price": f"{chain.format_amount(ask.price_per_hour)} an hour" + _compared(planned),
        "disk": f"{settings.disk_mb:,} MB a job, of {free_mb(home()):,} MB free",
        "gas": gas_of_an_hour(chain, settings),
        "speed": _per_hour(ask.units_per_hour),
        "stake": f"at most {chain.format_amount(ask.max_stake)} a lease, {ask.max_active} at a time",
        "rules": f"{settings.rules_name}: a checkpoint every {rules.checkpoint_timeout} s, window {rules.window} s, "
        f"arbiter {rules.arbiter}",
        "market": f"{settings.market_url}, matcher {ask.matcher}",
        "good for": f"{settings.ask_seconds} s, then made anew while the agent runs",
        "deposit now": chain.format_amount(deposit) if deposit else "nothing, the stake is there",
    }


def _compared(planned: Registration) -> str:
    suggested = planned.demand and planned.demand.suggestion(planned.settings.units_per_hour)
    return f"; {planned.chain.format_amount(suggested.price)}: {suggested.source}" if suggested else ""


def gas_of_an_hour(chain: Chain, settings: ProviderSettings) -> str:
    """What transactions cost today, beside what a lease pays."""
    timeout = settings.rules.checkpoint_timeout
    redeem_every = LeaseTiming.of(timeout, redeem_every=settings.redeem_every).redeem_every
    wei, share = per_hour(settings.price_per_hour, gas_today(chain, settings.money), redeem_every)
    words = f"about {format_ether(wei)} ETH for a lease of an hour"
    return words + (
        " (tokens_per_eth in provider.toml shows it as a share)" if share is None else f", {share:.1%} of its pay"
    )


def _per_hour(units: int) -> str:
    return f"{units:,} units an hour ({units / SECONDS_PER_HOUR / 1e6:.3g} TFLOP/s)"
