"""`gpumarket audit watch`: anyone replays claims that are on chain, and challenges what differs."""

import signal
import threading
from typing import Annotated

import structlog
import typer

from contracts.api.access import Signer
from contracts.api.client import MarketClient
from contracts.chain.client import Chain, connect
from contracts.chain.errors import NODE_AWAY
from contracts.chain.sending.sender import Sender
from contracts.cli.jobs import MarketUrl, checker, chosen_job
from contracts.cli.output import PlainConsole, say
from contracts.errors import UserError
from contracts.program.progress_bar import watching
from contracts.settings import home, load_settings
from contracts.wallet import keys
from contracts.wallet.encryption_keys import unlock
from worker.cli.replay import INTERRUPTED, SandboxChoice
from worker.replay.stretch import ReplayOptions
from worker.watching import Watched, Watcher

app = typer.Typer(add_completion=False)

DIFFERS = 3

log = structlog.get_logger()


@app.command()
def watch(
    job: Annotated[
        list[str] | None, typer.Argument(help="Jobs, as their ids or names; none: all that the key may read")
    ] = None,
    challenge: Annotated[
        bool, typer.Option("--challenge", help="Challenge what differs, with a bond; else it is only told")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Look at all that is claimed now, and end")] = False,
    poll: Annotated[float, typer.Option(help="Seconds between looks", min=0.1)] = 10,
    sandbox: Annotated[SandboxChoice, typer.Option(help="What recipes run in")] = SandboxChoice.BUBBLEWRAP,
    image: Annotated[str | None, typer.Option(help="For podman; default: this machine's own Python")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Host that jobs' files may be fetched from; may be repeated")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Key that reads the jobs, and bonds challenges")] = None,
    market: MarketUrl = None,
) -> None:
    """Replay claims that are on chain inside their window, until Ctrl-C; twice, what differs.

    The exit code with --once: 0 nothing differs; 3 something does; 1 an error.
    """
    settings = load_settings(market_url=market)
    account, own = unlock(keys.choose(key or settings.key))
    chain, stop = connect(settings), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with (
        MarketClient(settings.require("market_url"), signer=Signer(account, chain.domain)) as client,
        watching(PlainConsole(stderr=True)) as bar,
    ):
        jobs = [chosen_job(client, one).id for one in job or ()]
        options = ReplayOptions(
            sandbox="podman" if sandbox is SandboxChoice.PODMAN else "bubblewrap",
            image=image,
            hosts=tuple(allow_host or ()),
            watch=bar,
        )
        watcher = Watcher(
            client, Sender(chain, account), own, checker(settings), options, home() / "replays",
            challenges=challenge, stop=stop,
        )  # fmt: skip
        if once:
            if _look(watcher, chain, jobs):
                raise typer.Exit(DIFFERS)
            return
        while not stop.is_set():
            try:
                _look(watcher, chain, jobs)
            except (UserError, *NODE_AWAY) as error:
                log.warning("watch.retry", problem=str(error))
            stop.wait(poll)


def _look(watcher: Watcher, chain: Chain, jobs: list[str]) -> bool:
    """Whether something differs."""
    differs = False
    try:
        for watched in watcher.look(jobs):
            differs = differs or watched.verdict == "differs"
            _show(watched, chain)
    except KeyboardInterrupt:
        PlainConsole(stderr=True).print("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    return differs


def _show(watched: Watched, chain: Chain) -> None:
    lease = watched.pending.lease
    what = f"checkpoint {watched.n} of lease {lease.id}, by {lease.provider}"
    say(f"{watched.verdict.replace('_', ' ')}: {what}" + (f": {watched.why}" if watched.why else ""))
    if watched.challenged is not None:
        say(f"challenged: dispute {watched.challenged}, bond {chain.format_amount(watched.bond)}")
    elif watched.verdict == "differs":
        gain = f"a reward of {chain.format_amount(watched.reward)}" if watched.reward else "the bond comes back"
        say(
            f"a challenge takes a bond of {chain.format_amount(watched.bond)}; if the arbiter says the same: {gain}; "
            f"{watched.pending.until - chain.now()} s are left"
        )
