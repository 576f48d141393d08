"""`gpumarket provider`: offer this machine, train, see what came of it."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Protocol

import structlog
import typer
from rich.console import Group
from rich.live import Live

from contracts.chain.client import connect
from contracts.cli.output import Output, OutputOption, console, print_whole, whole
from contracts.errors import UserError
from contracts.program.logs import log_stream
from contracts.settings import load_settings
from contracts.strict_json import write_json
from contracts.wallet import keys
from contracts.wallet.encryption_keys import unlock
from worker.agent.agent import Agent
from worker.agent.fleet import Fleet, read_lots, registered, stop_without_fleet
from worker.cli import machine, money
from worker.cli.estimate import estimate
from worker.cli.machine import Keys, chosen
from worker.cli.register import gas_of_an_hour, register
from worker.cli.status import status_report, status_tables
from worker.lease.folder import Store
from worker.machine.hardware import probe
from worker.machine.presence import FLEET
from worker.onboarding.register import with_numerics_of_now
from worker.settings import read_provider_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Offer this machine's GPUs and train.")
app.command()(register)
app.command()(estimate)


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
    configure_agent_logs(json_logs, lot=key[0] if key and FLEET in os.environ else None)
    if everything and key:
        raise UserError("--all and --key contradict each other", "leave out one of the two")
    lots = chosen(key) if everything or (key and len(key) > 1) else []
    if len(lots) > 1:
        _run_fleet(lots, [flag for flag, given in (("--once", once), ("--json-logs", json_logs)) if given])
    else:
        _run_agent(lots[0] if lots else key[0] if key else None, once)


def _run_fleet(lots: list[str], options: list[str]) -> None:
    """`options`: of the `provider start` of each lot."""
    fleet = Fleet(read_lots(lots), probe(), options)
    _heed_signals(fleet, fleet.hurry)
    fleet.run()


def _run_agent(key: str | None, once: bool) -> None:
    config = load_settings(key=key)
    name = keys.choose(config.key)
    settings, chain = with_numerics_of_now(name, read_provider_settings(name)), connect(config)
    structlog.get_logger().info("agent.gas", a_lease=gas_of_an_hour(chain, settings))
    agent = Agent(name, settings, chain, *unlock(name), once=once)
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
    config = load_settings()
    names = key or ([config.key] if config.key else registered()) or [keys.choose(None)]
    chain = connect(config)
    stores = {name: Store(name) for name in dict.fromkeys(names)}

    def reports() -> list[dict[str, Any]]:
        return [status_report(chain, store, name) for name, store in stores.items()]

    if output is Output.JSON:
        print(write_json(reports(), indent=2))
        return
    if not watch:
        for table in status_tables(reports()):
            print_whole(console, table)
        return
    with Live(_shown(reports()), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(2)
            live.update(_shown(reports()), refresh=True)


def _shown(reports: list[dict[str, Any]]) -> Group:
    return Group(*(whole(table, console.width) for table in status_tables(reports)))


def configure_agent_logs(json_lines: bool, lot: str | None = None) -> None:
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


for command in (
    money.earnings, money.withdraw, money.sweep,
    machine.selftest, machine.pause, machine.resume, machine.systemd,
):  # fmt: skip
    app.command()(command)
