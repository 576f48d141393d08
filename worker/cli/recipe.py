"""`gpumarket recipe`: start from an example, count a recipe's work, and train a job on this machine."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from contracts.cli.output import Output, OutputOption, PlainConsole, console, marked, say
from contracts.errors import UserError
from contracts.job.file import parse_job_file, read_job, work_hash
from contracts.job.measured import MeasuredOn
from contracts.job.spec import JobSpec, check_steps
from contracts.strict_json import write_json
from worker import recipes
from worker.cli import new_recipe
from worker.cli.job_lines import set_units, set_units_of
from worker.cli.local_rehearsal import LocalRehearsal
from worker.cli.local_run import check_files_are_here, limits_for, train_locally
from worker.machine.hardware import probe
from worker.machine.measuring import Bench
from worker.onboarding.register import choose_gpus
from worker.training.environment import ENVIRONMENTS, environment_id, installed
from worker.training.messages import Checkpoint, Message, Stepped

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Check and measure a training program.")

BUSY_TIME_SHARE = 0.25  # of the time: above it a measurement is worth little

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
def measure(
    path: JobArgument,
    threads: Threads = 1,
    trust: Trust = False,
    seconds: Annotated[
        float, typer.Option(min=0.5, max=3600, help="For the job, and as long for the benchmark beside it")
    ] = 20,
    output: OutputOption = Output.TABLE,
) -> None:
    """Measure a job's work units per checkpoint on this machine, and write them into its job.yaml.

    They are what the machine could have done in the time that a checkpoint takes, by the benchmark that providers are
    measured by, and never less than the floating-point operations of its steps.
    """
    job_file = path / "job.yaml" if path.is_dir() else path
    job, spec = read_job(job_file)
    check_files_are_here(spec, job_file.parent)
    bench, model = choose_bench(spec, seconds, threads, trust)
    with PlainConsole(stderr=True).status("counting the work of one step") as status:
        found = bench.work_of(spec, job_file.parent, limits_for(spec), status.update)
    where = MeasuredOn(
        device=model,
        threads=threads,
        units_per_hour=found.units_per_hour,
        seconds=float(f"{found.seconds:.3g}"),
    )
    text = set_units(job_file.read_text(encoding="utf-8"), found.units, where)
    job_file.write_text(set_units_of(text, work_hash(spec, found.units)), encoding="utf-8")
    ready = found.ready
    if output is Output.JSON:
        facts: dict[str, Any] = {
            "units": found.units,
            "flops": ready.flops,
            "flops_units": ready.units,
            "busy": round(found.busy, 3),
        }
        facts |= {"parameters": ready.parameters, "measured_on": where.model_dump()}
        console.print_json(write_json({"job": str(job_file)} | facts))
        return
    by_flops = found.units == ready.units
    say(
        f"{job.name}: {found.units:,} units per checkpoint of {spec.checkpoint_every} steps; "
        f"{ready.flops / 1e6:,.1f} MFLOP a step, {ready.parameters:,} parameters"
    )
    cores = f"{threads} thread" + ("" if threads == 1 else "s")
    say(
        f"a checkpoint takes {where.seconds:g} s on this {model} with {cores}, whose benchmark does "
        f"{found.units_per_hour:,} units an hour; by floating-point operations alone it is {ready.units:,} units"
        + (", which is more than the time comes to" if by_flops else "")
    )
    if found.busy > BUSY_TIME_SHARE:
        say(marked("[yellow]others kept this machine busy for {} of the time[/]: measure it idle", f"{found.busy:.0%}"))
    say(f"units: {found.units} is now in {job_file}")


def choose_bench(spec: JobSpec, seconds: float, threads: int, trust: bool) -> tuple[Bench, str]:
    """On this machine's GPUs that work, all of one model, if the job wants some and there are any; else on its CPU.

    And the model of that. Raises UserError if none of its GPUs works.
    """
    machine = probe()
    working = tuple(one for one in machine.gpus if one.works)
    if spec.resources.gpus and machine.trouble and not working:
        raise UserError(f"the job wants a GPU: {machine.trouble}", "mend that, or measure it on another machine")
    names = choose_gpus(replace(machine, processors=working, trouble=None), None)[: spec.resources.gpus]
    first = machine.gpu(names[0]) if names else None
    if first is None:
        return Bench(seconds, threads=threads, trusted=trust), machine.cpu
    return Bench(seconds, "cuda", threads, names, trust), first.model


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
    if job.units is not None and job.units < record.units:
        say(
            marked(
                "[yellow]job.yaml says {} units, this recipe does {} at least: run `gpumarket recipe measure {}`[/]",
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


app.add_typer(new_recipe.app)
