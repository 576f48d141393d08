"""The `gpumarket` command. Its sub-commands are entry points in the group `gpumarket.commands`.

An entry point names a Typer app and the extras that it needs: `market = "market.cli.market:app [market]"`. It is
imported only when its command is run, so that `gpumarket wallet` starts without fastapi or torch, and works
where they are not installed. One named `audit.watch` is the command `watch` of the group `audit`, whose other commands
another package has. As everywhere in Typer, an app with one command and no callback is itself the
command: `gpumarket reconcile`, not `gpumarket reconcile run`.
"""

import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from contracts.errors import UserError
from contracts.program import extras
from contracts.text import without_controls
from gpumarket_entry import refuse_strangers

GROUP = "gpumarket.commands"

# Shown by --help, which must not import the commands. In the order in which a newcomer meets them.
SUMMARIES = {
    "devnet": "Run a local chain with the contracts on it.",
    "deploy": "Put the contracts on a chain.",
    "wallet": "Make and use encrypted keys.",
    "market": "Run a market, or look into one.",
    "approver": "Approve checkpoints for a client.",
    "job": "Describe, submit and follow training jobs.",
    "offer": "See what machines are on offer, and their prices.",
    "provider": "Offer this machine's GPUs and train.",
    "recipe": "Check and measure a training program.",
    "replay": "Train a claimed checkpoint again, and compare it.",
    "arbiter": "Rule on disputes by training again.",
    "audit": "See what was replayed of a job, check it, and watch claims.",
    "epoch": "Look into a market's clearings, and verify them.",
    "audit.watch": "Replay claims on chain inside their window, and challenge what differs.",
    "reconcile": "Compare the books with the chain.",
}


def load_command(entry_point: EntryPoint) -> Any:
    """The command behind an entry point, or a UserError that says which extra to install."""
    with extras.needed_by(f"`gpumarket {entry_point.name.replace('.', ' ')}`", *entry_point.extras):
        app: typer.Typer = entry_point.load()
    return typer.main.get_command(app)


def explain(error: Exception, command: EntryPoint | None) -> UserError | None:
    """An error of a command as the user should see it; None if it is a bug, whose traceback is needed."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, ModuleNotFoundError) and command is not None:  # commands import what is slow when they run
        return extras.missing_extra(f"`gpumarket {command.name}`", command.extras, error)
    if "web3" not in sys.modules:  # then no node was asked anything; and importing it takes a second
        return None
    from contracts.chain.errors import explain_node

    return explain_node(error)


class PartedGroup(TyperGroup):
    """A group of which some commands are in other packages, as placeholders until they are run."""

    def __init__(self, name: str, own: Any, parts: Mapping[str, EntryPoint]) -> None:
        """`own`: the group of the first package; None where no package has one."""
        super().__init__(name=name, help=SUMMARIES.get(name), no_args_is_help=True)
        self.commands = dict(getattr(own, "commands", {}))
        self.parts = parts
        for part in parts:
            self.add_command(TyperCommand(part, help=SUMMARIES.get(f"{name}.{part}")))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        part = self.parts.get(name or "")
        return name, load_command(part) if part else command, rest


class LazyGroup(TyperGroup):
    """A group whose commands are placeholders (enough for help, completion and spelling) until one is run."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.entry_points: dict[str, EntryPoint] = {}
        self.parts: dict[str, dict[str, EntryPoint]] = {}
        for found in entry_points(group=GROUP):
            group, _, part = found.name.partition(".")
            if part:
                self.parts.setdefault(group, {})[part] = found
            else:
                self.entry_points[group] = found
        names = self.entry_points.keys() | self.parts.keys()
        for name in [name for name in SUMMARIES if name in names] + sorted(names - SUMMARIES.keys()):
            self.add_command(TyperCommand(name, help=SUMMARIES.get(name)))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, self._load(name) if name else placeholder, rest

    def _load(self, name: str) -> Any:
        own = load_command(self.entry_points[name]) if name in self.entry_points else None
        return PartedGroup(name, own, self.parts[name]) if name in self.parts else own

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            explained = explain(error, self.entry_points.get(ctx.invoked_subcommand or ""))
            if explained is None or ctx.params["debug"]:
                raise
            if explained.trace:
                typer.echo(without_controls(explained.trace.rstrip("\n")), err=True)
            typer.secho(without_controls(f"error: {explained.message}"), fg=typer.colors.RED, err=True)
            if explained.hint:
                typer.secho(without_controls(f"hint: {explained.hint}"), err=True)
            raise typer.Exit(1) from error


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpumarket {version('gpumarket')}")
        raise typer.Exit


@app.callback()
def gpumarket(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="GPUMARKET_DEBUG", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A decentralized marketplace for GPU training: escrowed jobs, paid by the checkpoint."""


def main() -> None:
    refuse_strangers()
    from contracts.program.logs import log_warnings_only

    log_warnings_only()  # services choose their own
    app(prog_name="gpumarket")


if __name__ == "__main__":
    main()
