"""`gpumarket recipe`: start from an example, count a recipe's work, and train a job on this machine."""

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from contracts.cli.output import Output, OutputOption, PlainConsole, console, marked, say
from contracts.errors import UserError
from contracts.extras import needed_by
from contracts.job.file import parse_job_file, read_job
from contracts.job.spec import JobSpec, check_steps
from contracts.strict_json import write_json
from worker import recipes
from worker.cli.local_run import check_files_are_here, limits_for, train_locally
from worker.cli.rehearsal import LocalRehearsal
from worker.sandbox.runner import Runner
from worker.training.environment import ENVIRONMENTS, environment_id, installed
from worker.training.messages import Checkpoint, Failed, Message, Ready, Stepped

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Check and measure a training program.")

JobArgument = Annotated[Path, typer.Argument(help="job.yaml, or the folder that holds one", show_default=False)]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads to train with")]
Trust = Annotated[bool, typer.Option("--trust", help="Run my own recipe even if there is no sandbox here")]


@app.command("list")
def list_recipes(output: OutputOption = Output.TABLE) -> None:
    """Show the example recipes."""
    rows = []
    for name in recipes.NAMES:
        folder = recipes.FOLDER / name
        job = parse_job_file((folder / "job.yaml").read_text(), f"{name}/job.yaml")
        about = (folder / "recipe.py").read_text().split('"""')[1].splitlines()[0]
        rows.append(
            {"name": name, "about": about, "steps": job.steps, "checkpoints": job.steps // job.checkpoint_every}
        )
    if output is Output.JSON:
        console.print_json(write_json(rows))
        return
    for row in rows:
        shape = f"{row['steps']} steps, {row['checkpoints']} checkpoints"
        say(marked("[bold]{}[/] {} [dim]({})[/]", f"{row['name']:10}", row["about"], shape))


@app.command()
def environments(output: OutputOption = Output.TABLE) -> None:
    """Show the environments that a job may name, and what this machine has of them."""
    here, found = environment_id(), installed()
    rows = [{"id": one.id, "here": one.id == here, "contains": dict(one.contents)} for one in ENVIRONMENTS.values()]
    if output is Output.JSON:
        console.print_json(write_json({"environments": rows, "installed": found}))
        return
    for one in ENVIRONMENTS.values():
        say(marked("[bold]{}[/] [dim]{}[/]", one.id, "this machine has it" if one.id == here else "not here"))
        for name, wanted in one.contents.items():
            say(marked("  {} [dim]{}[/]", f"{name:12} {wanted}", f"(here {found[name]})" if one.id == here else ""))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="An example: see `gpumarket recipe list`", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Where to put the job", show_default=False)],
    output: OutputOption = Output.TABLE,
) -> None:
    """Copy an example recipe with its job.yaml, and make its data."""
    if name not in recipes.NAMES:
        raise UserError(f"there is no example recipe {name!r}", f"choose from: {', '.join(recipes.NAMES)}")
    source = recipes.FOLDER / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already, and not an empty folder", "choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("recipe.py", "job.yaml"):
        shutil.copyfile(source / file, folder / file)
    with PlainConsole(stderr=True).status("making the data"):
        made = make_example_data(name, folder)
    files = ["recipe.py", "job.yaml", *(file.name for file in made)]
    if output is Output.JSON:
        console.print_json(write_json({"folder": str(folder), "files": files}))
        return
    say(f"{folder}: {', '.join(files)}")
    say(f"next: change what you like, gpumarket recipe measure {folder}, gpumarket job submit {folder}")


def make_example_data(name: str, folder: Path) -> list[Path]:
    """Makes the data of a shipped recipe in `folder`; returns the files."""
    spec = spec_from_file_location(f"make_data_{name}", recipes.FOLDER / name / "make_data.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    with needed_by(f"making the data of {name}", "recipes"):
        files: list[Path] = module.make_data(folder)
    return files


@app.command()
def measure(path: JobArgument, threads: Threads = 1, trust: Trust = False, output: OutputOption = Output.TABLE) -> None:
    """Count a job's work units per checkpoint, and write them into its job.yaml."""
    job_file = path / "job.yaml" if path.is_dir() else path
    job, spec = read_job(job_file)
    with (
        PlainConsole(stderr=True).status("counting the work of one step"),
        tempfile.TemporaryDirectory() as work_folder,
    ):
        ready = _measure(spec, job_file.parent, Path(work_folder), threads, trust)
    job_file.write_text(set_units(job_file.read_text(encoding="utf-8"), ready.units), encoding="utf-8")
    if output is Output.JSON:
        facts = {"units": ready.units, "flops": ready.flops, "parameters": ready.parameters}
        console.print_json(write_json({"job": str(job_file)} | facts))
        return
    say(
        f"{job.name}: {ready.units:,} units per checkpoint ({ready.flops / 1e6:,.1f} MFLOP a step, "
        f"{spec.checkpoint_every} steps), {ready.parameters:,} parameters"
    )
    say(f"units: {ready.units} is now in {job_file}")


def _measure(spec: JobSpec, job_folder: Path, work_folder: Path, threads: int, trust: bool) -> Ready:
    check_files_are_here(spec, job_folder)
    runner = Runner(spec, job_folder, work_folder, threads=threads, limits=limits_for(spec), trusted=trust)
    with runner as run:
        for message in run.messages():
            match message:
                case Ready():
                    return message
                case Failed():
                    raise message.failure()
    raise AssertionError("messages end with Failed, Stopped or Done, and the first is Ready or Failed")


@app.command()
def run(
    path: JobArgument,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="For checkpoints and log [default: run/ beside job.yaml]", show_default=False),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write losses, roots and tips to this file")] = None,
    threads: Threads = 1,
    trust: Trust = False,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearsal/--no-rehearsal", help="Stop and go on in another process; is it the same?"),
    ] = True,
    output: OutputOption = Output.TABLE,
) -> None:
    """Train a job on this machine as a worker would, and print its losses and roots.

    It also stops in between and goes on in another process, as jobs do on the market: that must be the same.
    """
    job_file = path / "job.yaml" if path.is_dir() else path
    job, spec = read_job(job_file)
    last = spec.checkpoints if steps is None else _checkpoints(steps, spec)
    out = out or job_file.parent / "run"
    shown = console if output is Output.TABLE else PlainConsole(stderr=True)
    rehearsal = LocalRehearsal(spec, job_file.parent, out, threads, trust)
    if rehearse:
        with shown.status("rehearsing") as status:
            rehearsal.say = status.update
            rehearsal.before(last)
    began = time.monotonic()
    with _progress(last * spec.checkpoint_every, shown) as watch:
        record = train_locally(spec, job_file.parent, out, last=last, threads=threads, trusted=trust, watch=watch)
    if json is not None:
        record.write(json)
    if rehearse:
        with shown.status("rehearsing") as status:
            rehearsal.say = status.update
            rehearsal.after(record, time.monotonic() - began)
        record.rehearsal = rehearsal.facts()
        if json is not None:
            record.write(json)
    if output is Output.JSON:
        console.print_json(write_json(vars(record) | {"folder": str(out)}))
        return
    say(f"state root {record.state_root}\ntip        {record.checkpoints[-1]['tip']}", highlight=False)
    say(f"sandbox    {record.sandbox}\nfiles      {out}")
    if rehearse:
        say(f"rehearsal  {rehearsal.told()}", highlight=False, soft_wrap=True)
    if record.early_stop:
        say(record.early_stop)
    if job.units is not None and job.units != record.units:
        say(
            marked(
                "[yellow]job.yaml says {} units, this recipe does {}: run `gpumarket recipe measure {}`[/]",
                job.units,
                record.units,
                path,
            )
        )


def _checkpoints(steps: int, spec: JobSpec) -> int:
    try:
        check_steps(steps, spec.checkpoint_every)
    except ValueError as error:
        raise UserError(f"--steps {steps}: {error}") from error
    if steps > spec.steps:
        raise UserError(f"--steps {steps} is more than the job's {spec.steps}", "raise `steps` in job.yaml")
    return steps // spec.checkpoint_every


@contextmanager
def _progress(steps: int, console: PlainConsole) -> Iterator[Callable[[Message], None]]:
    """A bar while training, and a line for each checkpoint."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("loading the recipe", total=steps)

        def watch(message: Message) -> None:
            match message:
                case Stepped():
                    bar.update(
                        task,
                        completed=message.step,
                        description=f"step {message.step} {_show(message.metrics)}",
                    )
                case Checkpoint():
                    console.print(
                        f"checkpoint {message.index:3}  step {message.step:6}  {_show(message.metrics)}  "
                        f"{message.seconds:.1f} s  trace {message.trace_root[:12]}",
                        highlight=False,
                        soft_wrap=True,
                    )

        yield watch


def _show(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


_UNITS = re.compile(r"^units:.*$", re.MULTILINE)


_AFTER = re.compile(r"^checkpoint_every:.*$", re.MULTILINE)


def set_units(text: str, units: int) -> str:
    """`text` with its `units:` line replaced, or with one added after `checkpoint_every:`."""
    line = f"units: {units}"
    if _UNITS.search(text):
        return _UNITS.sub(line, text, count=1)
    if after := _AFTER.search(text):
        return f"{text[: after.end()]}\n{line}{text[after.end() :]}"
    return f"{text.rstrip()}\n{line}\n"
