"""`gpumarket provider selftest`, `pause`, `resume`, `systemd`: looking after a machine that works for others."""

import getpass
import math
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from contracts.cli.output import Output, OutputOption, marked, say
from contracts.errors import UserError
from contracts.settings import home, load_settings
from contracts.strict_json import write_json
from contracts.wallet import keys
from worker.agent.fleet import EXTRA_SECONDS, registered
from worker.cli.options import Key
from worker.machine.presence import write_wish
from worker.onboarding.selftest import Selftest
from worker.onboarding.systemd import unit
from worker.pauses import parse_duration
from worker.settings import read_provider_settings

COLORS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}

Keys = Annotated[
    list[str] | None, typer.Option("--key", help="Name of a key; may be repeated. Default: all that are registered")
]


def chosen(names: list[str] | None) -> list[str]:
    """The lots that a command is for: those named, or all that are registered here. Raises UserError."""
    names = list(dict.fromkeys(names or registered()))
    if not names:
        raise UserError("no key is registered as a provider here", "gpumarket provider register")
    for name in names:
        read_provider_settings(name)
    return names


def selftest(
    key: Key = None,
    measure_seconds: Annotated[float, typer.Option(min=0, help="How long to measure the speed; 0: don't")] = 10,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check all that a provider needs, and say how to mend what is wrong. Exits with 1 if something fails."""
    name = keys.choose(load_settings(key=key).key)
    test = Selftest(name, read_provider_settings(name), measure_seconds)
    checks = []
    for check in test.run():
        checks.append(check)
        if output is Output.TABLE:
            color = COLORS[check.verdict]
            say(marked(f"[{color}]{check.verdict:4}[/]  {{}}: {{}}", check.name, check.found))
            if check.mend:
                say(marked("      [bold]{}[/]", check.mend))
    failed = any(check.verdict == "fail" for check in checks)
    if output is Output.JSON:
        print(write_json({"key": name, "ok": not failed, "checks": [vars(check) for check in checks]}, indent=2))
    raise typer.Exit(1 if failed else 0)


def pause(
    key: Keys = None,
    how_long: Annotated[
        str | None, typer.Option("--for", help="Such as 90m, 2h, 1d; until `resume` without it", metavar="DURATION")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Keep this machine to yourself: agents stop training, running or not yet started.

    A lease that can wait is held and goes on afterwards; others are given back at no loss but their gas.
    """
    names = chosen(key)
    try:
        until = math.inf if how_long is None else time.time() + parse_duration(how_long)
    except ValueError as error:
        raise UserError(f"--for: {error}") from error
    for name in names:
        write_wish(name, until)
    if output is Output.JSON:
        ends_at = until if math.isfinite(until) else None  # UTC seconds
        print(write_json({"keys": names, "paused": True, "until": ends_at}, indent=2))
        return
    ends = "`gpumarket provider resume`"
    if math.isfinite(until):
        ends = f"{datetime.fromtimestamp(until, UTC).astimezone():%Y-%m-%d %H:%M}"
    say(f"{', '.join(names)}: paused until {ends}")


def resume(key: Keys = None, output: OutputOption = Output.TABLE) -> None:
    """End a pause that was asked for by hand. Weekly hours and the like in provider.toml still hold."""
    names = chosen(key)
    for name in names:
        write_wish(name, None)
    if output is Output.JSON:
        print(write_json({"keys": names, "paused": False}, indent=2))
    else:
        say(f"{', '.join(names)}: work goes on")


def systemd(
    key: Keys = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with the keys' password; only systemd need be able to read it")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Whom a system unit runs as; default: you", metavar="NAME")] = None,
    user_unit: Annotated[bool, typer.Option("--user-unit", help="A unit of yours, for `systemctl --user`")] = False,
) -> None:
    """Print a hardened systemd unit that runs the lots: `gpumarket provider systemd > FILE`."""
    names = chosen(key)
    if user_unit and user:
        raise UserError("--user is for system units; a user's own runs as that user", "leave out one of the two")
    lots = [read_provider_settings(name) for name in names]
    print(
        unit(
            Path(sys.argv[0]).resolve(),
            names,
            home().resolve(),
            password_file=password_file and password_file.absolute(),
            user=None if user_unit else user or getpass.getuser(),
            stop_seconds=max(lot.grace_seconds for lot in lots) + 2 * EXTRA_SECONDS,
            python=(Path(sys.prefix), Path(sys.base_prefix)),
            podman=any(lot.sandbox == "podman" for lot in lots),
        ),
        end="",
    )
