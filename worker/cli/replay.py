"""`gpumarket replay`: whether a claimed checkpoint is what its training gives."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from contracts.api.bodies import CheckpointOut, JobOut
from contracts.api.client import MarketClient
from contracts.chain.client import connect
from contracts.chain.errors import NODE_AWAY
from contracts.chain.lookup import MarketLied, next_tip_on_chain
from contracts.cli.jobs import JobId, MarketUrl, ReadingKey, checker, chosen_job, domain_of, reader
from contracts.cli.output import Output, OutputOption, PlainConsole, marked, say
from contracts.errors import UserError, first_sentence
from contracts.program.progress_bar import Watch, watching
from contracts.settings import Settings, home, load_settings
from contracts.strict_json import write_json
from contracts.wallet import keys
from worker.lease.folder import Store
from worker.replay.findings import EXIT_CODES, ReplayFindings
from worker.replay.replay import Replayer, problem_with_trace
from worker.replay.stretch import ReplayOptions
from worker.training.checkpoints import trace_name

app = typer.Typer(add_completion=False)

INTERRUPTED = 130
COLOURS = {"equal": "green", "consistent": "green", "differs": "red", "inconsistent": "red"}


class ReplayMode(StrEnum):
    VERIFY = "verify"
    VALIDATE = "validate"


class SandboxChoice(StrEnum):
    BUBBLEWRAP = "bubblewrap"
    PODMAN = "podman"


@app.command()
def replay(
    job: JobId,
    checkpoint: Annotated[int, typer.Argument(min=1, help="Its number", show_default=False)],
    mode: Annotated[
        ReplayMode, typer.Option(help="verify: train the stretch again. validate: compare hashes only")
    ] = ReplayMode.VERIFY,
    tip: Annotated[
        str | None, typer.Option(help="How the claim's tip begins, if there are several", metavar="0x...")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep what is fetched and made in this folder", metavar="DIR")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write the replayed steps' digests to this file, 32 bytes a step")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="The claimed steps' digests, to tell the first step that differs")
    ] = None,
    gpus: Annotated[str | None, typer.Option(help="GPUs to train on, such as 0,1. Default: the first ones")] = None,
    sandbox: Annotated[SandboxChoice, typer.Option(help="What the recipe runs in")] = SandboxChoice.BUBBLEWRAP,
    image: Annotated[str | None, typer.Option(help="For podman; default: this machine's own Python")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run it even if there is no sandbox here")] = False,
    any_class: Annotated[
        bool, typer.Option("--any-class", help="Train in another numerics class, too: equal is equal, else it is 5")
    ] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Host that the job's files may be fetched from; may be repeated")
    ] = None,
    key: ReadingKey = None,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Train the stretch that leads to a claimed checkpoint again, and compare it bit for bit.

    For all who may read the job. The exit code: 0 equal; 3 it differs; 4 something can't be had; 5 not on this machine;
    6 the recipe fails; 1 an error; 130 interrupted.
    """
    settings = load_settings(market_url=market)
    stderr = PlainConsole(stderr=True)
    with _interruptible(), MarketClient(settings.require("market_url")) as client, _folder(keep) as folder:
        found = chosen_job(client, job)
        reading = reader(settings, client, found, key)
        with watching(stderr) as watch:
            options = ReplayOptions(
                gpus=_gpus(gpus),
                sandbox="podman" if sandbox is SandboxChoice.PODMAN else "bubblewrap",
                image=image,
                trusted=trust,
                hosts=tuple(allow_host or ()),
                any_class=any_class,
                watch=watch,
            )
            replayer = Replayer(
                client, found, domain_of(settings), checker(settings), reading.job_key, folder, options,
                partial(_tip_on_chain, settings, found, watch, stderr),
            )  # fmt: skip
            known = against or own_trace(
                replayer.claim(checkpoint, tip), found.spec.checkpoint_every, reading.signer.address
            )
            run = replayer.validate if mode is ReplayMode.VALIDATE else replayer.verify
            result = run(checkpoint, tip, known)
        if trace is not None and result.rerun is not None:
            _write(trace, b"".join(result.rerun.trace))
        text = write_json(result.as_json(), indent=2)
        if keep is not None:
            _write(keep / "replay.json", text.encode() + b"\n")
    if output is Output.JSON:
        typer.echo(text)
    else:
        _show(result)
    if code := EXIT_CODES[result.verdict]:
        raise typer.Exit(code)


def _tip_on_chain(
    settings: Settings, job: JobOut, watch: Watch, stderr: PlainConsole, index: int
) -> tuple[int, str] | None:
    """None too where the chain can't be asked: what the market shows can be replayed all the same."""
    try:
        return next_tip_on_chain(connect(settings), job, index, watch)
    except MarketLied:
        raise
    except (UserError, *NODE_AWAY) as error:
        stderr.print(f"the chain could not be asked which claim it has: {first_sentence(error)}")
        return None


def own_trace(claim: CheckpointOut, steps: int, address: str) -> Path | None:
    """The claimed steps' digests, where this machine's own agent has made the checkpoint and still has them."""
    for name, own in keys.list_keys().items():
        if own == claim.provider == address and (lease := Store(name).load(claim.lease)):
            record, path = claim.checkpoint, lease.work_folder / trace_name(claim.checkpoint.index)
            return None if problem_with_trace(path, record.trace_root, steps) else path
    return None


def _gpus(wanted: str | None) -> tuple[int | str, ...]:
    names = (name.strip() for name in wanted.split(",")) if wanted else ()
    return tuple(int(name) if name.isdigit() else name for name in names)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where a replay works. Files of others' jobs are in it, so it is for its owner only."""
    if keep is not None:
        try:
            keep.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UserError(f"the folder {keep} can't be made: {error.strerror}", "give another one") from error
        yield keep
        return
    parent = home() / "replays"
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the sandbox, clean up, and give an exit code of their own."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        PlainConsole(stderr=True).print("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror}") from error


def _show(found: ReplayFindings) -> None:
    record, rerun = found.claim.checkpoint, found.rerun
    colour = COLOURS.get(found.verdict, "yellow")
    what = f"checkpoint {record.index}, steps {found.start_step + 1} to {record.step}, by {found.claim.provider}"
    say(marked(f"[{colour}]{{}}[/] {{}}", found.verdict.replace("_", " "), what))
    if found.why:
        say(found.why)
    for check in found.checks:
        mark = {True: "ok", False: "NO", None: "?"}[check.holds]
        say(f"  {mark:3} {check.name:14} {check.said}")
    if rerun is not None:
        say(
            f"trained {len(rerun.trace)} steps in {rerun.seconds:.1f} s, after {rerun.start_seconds:.1f} s to start; "
            f"its provider took {record.seconds:.1f} s"
        )
    if found.hint:
        say(f"hint: {found.hint}")
