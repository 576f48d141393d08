"""`gpumarket provider`: offer this machine, train, see what came of it."""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Protocol

import structlog
import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from contracts.amounts import parse_positive
from contracts.api.bodies import Info
from contracts.api.client import MarketClient
from contracts.chain.client import Chain, connect
from contracts.chain.sending.fees import format_ether
from contracts.chain.sending.sender import Sender
from contracts.cli.output import Output
from contracts.errors import UserError
from contracts.logs import log_stream
from contracts.settings import load_settings
from contracts.types import SECONDS_PER_HOUR, ZERO_ADDRESS
from contracts.wallet import keys
from contracts.wallet.encryption_keys import unlock
from worker.agent.agent import Agent
from worker.agent.asks import check_market_terms, gas_today, make_ask
from worker.agent.fleet import Fleet, check_lots, read_lots, registered, stop_without_fleet
from worker.agent.gas import per_hour
from worker.cli import machine, money
from worker.cli.machine import Keys, chosen
from worker.cli.options import Key, OutputOption, confirm, console, facts, say, tokens
from worker.cli.status import status_report, status_table
from worker.lease.folder import Store
from worker.lease.schedule import LeaseTiming
from worker.machine.hardware import probe
from worker.machine.presence import FLEET
from worker.onboarding import register as registration
from worker.sandbox.podman import chosen_sandbox
from worker.settings import ProviderSettings, provider_settings_path, read_provider_settings, write_provider_settings
from worker.training.environment import Device

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Offer this machine's GPUs and train.")


@app.command()
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
        str | None, typer.Option(help="GPUs that this key sells together, such as 0,1; default: all", metavar="INDICES")
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
    settings = load_settings(market_url=market)
    chain = connect(settings)
    amount = partial(parse_positive, decimals=chain.decimals)
    price_per_hour = amount(_asked(price, "--price", "Price in tokens per hour of training"))
    staked = amount(_asked(stake, "--stake", "Stake in tokens"))
    environments = registration.check_environments(environment or [])
    with MarketClient(settings.require("market_url")) as client:
        info = client.info()
    chosen = registration.choose_rules(info, rules)
    name, address = registration.find_key(key)
    need = registration.deposit_needed(chain, address, staked)
    if need.missing and not dry_run:
        if address is None:
            address = _make_key(name)
        raise registration.how_to_get_tokens(chain, name, address, need)
    former = read_provider_settings(name) if provider_settings_path(name).exists() else None
    hosts = former.resources.hosts if former and allow_host is None else registration.check_hosts(allow_host or [])
    where = former.resources.region if former and region is None else registration.check_region(region or "")
    machine = probe()
    lot = registration.choose_gpus(machine, gpus)
    runtime = chosen_sandbox(former.sandbox, former.image) if former else chosen_sandbox()
    resources = registration.describe(machine, environments, where, lot, memory, hosts, runtime)
    beside = console if output is Output.TABLE else Console(stderr=True)
    speed = units_per_hour or _measure(measure_seconds, registration.device_of(machine), threads, lot, beside)
    offer = ProviderSettings(
        market_url=settings.require("market_url"),
        price_per_hour=price_per_hour,
        units_per_hour=speed,
        max_stake=amount(max_stake) if max_stake else staked,
        rules_name=chosen.name,
        rules=chosen.rules,
        resources=resources,
        device=registration.device_of(machine),
        gpus=lot,
        threads=threads,
    )
    if former is not None:
        offer = offer.as_before(former)
    check_lots({one: read_provider_settings(one) for one in registered() if one != name} | {name: offer}, machine)
    check_market_terms(info, chain, offer)
    if output is Output.TABLE:
        _show_offer(chain, name, address, offer, info, need.deposit)
        if need.missing:  # a dry run
            error = registration.how_to_get_tokens(chain, name, address, need)
            say(f"[yellow]{error.message}[/]\n{error.hint}")
    if not dry_run:
        if not yes:
            confirm()
        if need.deposit:
            registration.deposit_stake(Sender(chain, keys.load(name)), need.deposit)
        path = write_provider_settings(name, offer)
    if output is Output.JSON:
        money = {"deposit": str(need.deposit), "missing": str(need.missing)}
        told = {"key": name, "provider": address, "dry_run": dry_run} | money
        print(json.dumps(told | {"offer": offer.model_dump(mode="json")}, indent=2))
    elif dry_run:
        say("nothing was made, sent or written")
    else:
        if need.deposit:
            say(f"deposited {tokens(chain, need.deposit)}")
        say(f"wrote {path}")
        say(f"next: gpumarket provider start --key {name}   (posts the Ask, and works until you stop it)")


@app.command()
def start(
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", help="Name of a key; may be repeated: a process for each. Not needed if there is only one"
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All keys that are registered here")] = False,
    once: Annotated[bool, typer.Option("--once", help="End when the first lease is over")] = False,
    home: Annotated[Path | None, typer.Option(help="Home folder; default: $GPUMARKET_HOME or ~/.gpumarket")] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log one JSON object a line")] = False,
) -> None:
    """Post the Ask and train what comes, until SIGTERM or Ctrl-C.

    The first signal hands the job over at no loss, within the grace time; a second one ends at once, and the next
    start goes on from disk.
    """
    if home is not None:
        os.environ["GPUMARKET_HOME"] = str(home)
    configure_logs(json_logs, lot=key[0] if key and FLEET in os.environ else None)
    if everything and key:
        raise UserError("--all and --key contradict each other", "leave out one of the two")
    lots = chosen(key) if everything or (key and len(key) > 1) else []
    if len(lots) > 1:
        options = [flag for flag, given in (("--once", once), ("--json-logs", json_logs)) if given]
        fleet = Fleet(read_lots(lots), probe(), options)
        _heed_signals(fleet, fleet.hurry)
        fleet.run()
        return
    settings = load_settings(key=lots[0] if lots else key[0] if key else None)
    name = keys.choose(settings.key)
    offer, chain = read_provider_settings(name), connect(settings)
    structlog.get_logger().info("agent.gas", a_lease=_gas(chain, offer))
    agent = Agent(name, offer, chain, *unlock(name), once=once)
    _heed_signals(agent, lambda: None)
    stop_without_fleet(agent.stop)
    agent.run()


class _Stoppable(Protocol):
    @property
    def stopping(self) -> bool: ...

    def stop(self) -> None: ...


def _heed_signals(running: _Stoppable, hurry: Callable[[], None]) -> None:
    """The first one stops what runs, the second ends this process."""

    def stop(number: int, frame: FrameType | None) -> None:
        if running.stopping:
            hurry()
            os._exit(128 + number)
        running.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


@app.command()
def status(
    key: Keys = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh it every two seconds")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show balance, leases and earnings of provider keys. Needs no password. JSON is a list, one item a key."""
    settings = load_settings()
    names = key or ([settings.key] if settings.key else registered()) or [keys.choose(None)]
    chain = connect(settings)
    stores = {name: Store(name) for name in dict.fromkeys(names)}

    def reports() -> list[dict[str, Any]]:
        return [status_report(chain, store, name) for name, store in stores.items()]

    if output is Output.JSON:
        print(json.dumps(reports(), indent=2))
        return
    if not watch:
        say(status_table(reports()))
        return
    with Live(status_table(reports()), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(2)
            live.update(status_table(reports()), refresh=True)


def configure_logs(json_lines: bool, lot: str | None = None) -> None:
    """Logs to standard error: time in UTC, event, lease and job; and which of several lots it is."""
    renderer: Any = structlog.processors.JSONRenderer()
    if not json_lines:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            lambda logger, method, event: {**event, "lot": lot} if lot else event,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(log_stream()),
    )


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


def _measure(seconds: float, device: Device, threads: int, gpus: tuple[int, ...], console: Console) -> int:
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        # Before the first measured step the process has to start and to warm up.
        task = progress.add_task("measuring the training speed", total=seconds + 5)
        began = time.monotonic()
        found = registration.measured(
            seconds, device, threads, gpus, lambda: progress.update(task, completed=time.monotonic() - began)
        )
    spread = f"fastest and slowest fifth {found.spread:.0%} apart"
    console.print(f"trains {_per_hour(found.units_per_hour)}, {spread}", highlight=False, soft_wrap=True)
    return found.units_per_hour


def _gas(chain: Chain, offer: ProviderSettings) -> str:
    """What transactions cost today, beside what a lease pays."""
    timeout = offer.rules.checkpoint_timeout
    redeem_every = LeaseTiming.of(timeout, redeem_every=offer.redeem_every).redeem_every
    wei, share = per_hour(offer.price_per_hour, gas_today(chain, offer.money), redeem_every)
    words = f"about {format_ether(wei)} ETH for a lease of an hour"
    return words + (
        " (tokens_per_eth in provider.toml shows it as a share)" if share is None else f", {share:.1%} of its pay"
    )


def _per_hour(units: int) -> str:
    return f"{units:,} units an hour ({units / SECONDS_PER_HOUR / 1e6:.3g} TFLOP/s)"


def _show_offer(
    chain: Chain, name: str, address: str | None, offer: ProviderSettings, info: Info, deposit: int
) -> None:
    resources, rules = offer.resources, offer.rules
    page = chain.account(address).page if address else 0
    ask = make_ask(offer, address or ZERO_ADDRESS, info, page, chain.now())
    runtime = chosen_sandbox(offer.sandbox, offer.image)
    problem = runtime.problem()
    sandboxed = runtime.kind if problem is None else f"none: {problem}. Only shipped recipes will run"
    rows = {
        "provider": f"{address or '(a new key)'}  (key '{name}')",
        "machine": f"{resources.gpus} x {resources.device}, {resources.vram_mb} MB each"
        if resources.gpus
        else f"{resources.device}, {resources.memory_mb} MB, no GPU",
        "region": resources.region or "untold (--region)",
        "environment": ", ".join(resources.environments),
        "fetches files from": ", ".join(resources.hosts) or "the market only (--allow-host)",
        "sandbox": sandboxed,
        "price": f"{tokens(chain, ask.price_per_hour)} an hour",
        "gas": _gas(chain, offer),
        "speed": _per_hour(ask.units_per_hour),
        "stake": f"at most {tokens(chain, ask.max_stake)} a lease, {ask.max_active} at a time",
        "rules": f"{offer.rules_name}: a checkpoint every {rules.checkpoint_timeout} s, window {rules.window} s, "
        f"arbiter {rules.arbiter}",
        "market": f"{offer.market_url}, matcher {ask.matcher}",
        "good for": f"{offer.ask_seconds} s, then made anew while the agent runs",
        "deposit now": tokens(chain, deposit) if deposit else "nothing, the stake is there",
    }
    say(facts(rows, "The Ask that `gpumarket provider start` signs"))


for command in (
    money.earnings, money.withdraw, money.sweep,
    machine.selftest, machine.pause, machine.resume, machine.systemd,
):  # fmt: skip
    app.command()(command)
