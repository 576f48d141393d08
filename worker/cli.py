"""`gpumarket provider`: offer this machine, train, see what came of it."""

import json
import logging
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import structlog
import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from contracts import keys
from contracts.amounts import format_amount, parse_positive
from contracts.api.bodies import Info
from contracts.api.client import MarketClient
from contracts.chain.client import Chain, connect
from contracts.chain.sender import Sender
from contracts.errors import UserError
from contracts.output import Output
from contracts.settings import load_settings
from contracts.types import SECONDS_PER_HOUR, ZERO_ADDRESS
from worker import register as registration
from worker import sandbox, status_report
from worker.agent import Agent
from worker.asks import check_market, make_ask
from worker.hardware import probe
from worker.offer import Offer, read_offer, write_offer
from worker.store import Store

app = typer.Typer(no_args_is_help=True, help="Offer this machine's GPUs and train.")
console = Console()
say = partial(console.print, highlight=False, soft_wrap=True)


Key = Annotated[str | None, typer.Option("--key", help="Name of the key; not needed if there is only one")]


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
    region: Annotated[str, typer.Option(help="Where the machine is, for clients to see")] = "",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads to train with")] = 1,
    measure_seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure the speed")] = 20,
    units_per_hour: Annotated[
        int | None, typer.Option(min=1, help="Work units per hour, instead of measuring them")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it all; make, send and write nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before the deposit")] = False,
) -> None:
    """Measure this machine, deposit the stake, and write down what to offer. `start` then posts it."""
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
    need = registration.needed(chain, address, staked)
    if need.missing and not dry_run:
        if address is None:
            address = _make_key(name)
        raise registration.how_to_get_tokens(chain, name, address, need)
    machine = probe()
    speed = units_per_hour or _measure(measure_seconds, registration.device_of(machine), threads)
    offer = Offer(
        market_url=settings.require("market_url"),
        price_per_hour=price_per_hour,
        units_per_hour=speed,
        max_stake=amount(max_stake) if max_stake else staked,
        rules_name=chosen.name,
        rules=chosen.rules,
        resources=registration.describe(machine, environments, region),
        device=registration.device_of(machine),
        threads=threads,
    )
    check_market(info, chain, offer)
    _show_offer(chain, name, address, offer, info, need.deposit)
    if dry_run:
        if need.missing:
            error = registration.how_to_get_tokens(chain, name, address, need)
            say(f"[yellow]{error.message}[/]\n{error.hint}")
        say("nothing was made, sent or written")
        return
    if not yes and not typer.confirm("Go on?" if sys.stdin.isatty() else "--yes was not given. Go on?"):
        raise typer.Abort
    if need.deposit:
        registration.deposit(Sender(chain, keys.load(name)), need.deposit)
        say(f"deposited {_tokens(chain, need.deposit)}")
    say(f"wrote {write_offer(name, offer)}")
    say(f"next: gpumarket provider start --key {name}   (posts the Ask, and works until you stop it)")


@app.command()
def start(
    key: Key = None,
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
    settings = load_settings(key=key)
    name = keys.choose(settings.key)
    offer = read_offer(name)
    account = keys.load(name)
    configure_logs(json_logs)
    agent = Agent(name, offer, connect(settings), account, once=once)

    def stop(number: int, frame: FrameType | None) -> None:
        if agent.stopping:
            os._exit(128 + number)
        agent.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    agent.run()


@app.command()
def status(
    key: Key = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh it every two seconds")] = False,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="As a table, or as JSON for programs")
    ] = Output.TABLE,
) -> None:
    """Show balance, leases and earnings of a provider key. Needs no password."""
    settings = load_settings(key=key)
    name = keys.choose(settings.key)
    chain, store = connect(settings), Store(name)
    report = status_report.make(chain, store, name)
    if output is Output.JSON:
        print(json.dumps(report, indent=2))
        return
    if not watch:
        say(status_report.table(report))
        return
    with Live(status_report.table(report), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(2)
            live.update(status_report.table(status_report.make(chain, store, name)), refresh=True)


def configure_logs(json_lines: bool) -> None:
    """Logs to standard error: time in UTC, event, lease and job."""
    renderer: Any = structlog.processors.JSONRenderer()
    if not json_lines:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
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


def _measure(seconds: float, device: Any, threads: int) -> int:
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        # Before the first measured step the process has to start and to warm up.
        task = progress.add_task("measuring the training speed", total=seconds + 5)
        began = time.monotonic()
        found = registration.measured(
            seconds, device, threads, lambda: progress.update(task, completed=time.monotonic() - began)
        )
    say(f"trains {_per_hour(found.units_per_hour)}, fastest and slowest fifth {found.spread:.0%} apart")
    return found.units_per_hour


def _per_hour(units: int) -> str:
    return f"{units:,} units an hour ({units / SECONDS_PER_HOUR / 1e6:.3g} TFLOP/s)"


def _show_offer(chain: Chain, name: str, address: str | None, offer: Offer, info: Info, deposit: int) -> None:
    resources, rules = offer.resources, offer.rules
    page = chain.account(address).page if address else 0
    ask = make_ask(offer, address or ZERO_ADDRESS, info, page, chain.now())
    problem = sandbox.bubblewrap_problem()
    sandboxed = resources.sandbox if problem is None else f"none: {problem}. Only shipped recipes will run"
    rows = {
        "provider": f"{address or '(a new key)'}  (key '{name}')",
        "machine": f"{resources.gpus} x {resources.device}, {resources.vram_mb} MB each"
        if resources.gpus
        else f"{resources.device}, {resources.memory_mb} MB, no GPU",
        "environment": ", ".join(resources.environments),
        "sandbox": sandboxed,
        "price": f"{_tokens(chain, ask.price_per_hour)} an hour",
        "speed": _per_hour(ask.units_per_hour),
        "stake": f"at most {_tokens(chain, ask.max_stake)} a lease, {ask.max_active} at a time",
        "rules": f"{offer.rules_name}: a checkpoint every {rules.checkpoint_timeout} s, window {rules.window} s, "
        f"arbiter {rules.arbiter}",
        "market": f"{offer.market_url}, matcher {ask.matcher}",
        "good for": f"{offer.ask_seconds} s, then made anew while the agent runs",
        "deposit now": _tokens(chain, deposit) if deposit else "nothing, the stake is there",
    }
    table = Table(
        title="The Ask that `gpumarket provider start` signs", show_header=False, box=None, title_justify="left"
    )
    for what, value in rows.items():
        table.add_row(f"[bold]{what}[/]", value)
    say(table)


def _tokens(chain: Chain, amount: int) -> str:
    return f"{format_amount(amount, chain.decimals)} {chain.symbol}"
