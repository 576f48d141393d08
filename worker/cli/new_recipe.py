"""`gpumarket recipe new`: a folder to start from, which is there whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Annotated

import typer

from contracts.cli.output import Output, OutputOption, PlainConsole, console, say
from contracts.errors import UserError
from contracts.job.file import read_job, work_hash
from contracts.program.extras import needed_by
from contracts.strict_json import write_json
from worker import recipes
from worker.cli.job_lines import set_units_of
from worker.training.environment import environment_id

app = typer.Typer()

EMPTY_RECIPE = '''"""What this learns, in one line."""

import torch
from torch import nn

from gpumarket.recipe import load_optimizer_state, optimizer_state


class Mine:
    def __init__(self, config, data):
        """`config` is that of job.yaml; `data["train.bin"]` would be the path of a file that it names."""
        self.model = nn.Linear(16, 4)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config["lr"])

    def step(self, i):
        """Step i, from 1. All generators are seeded with i before it: let the batch be a function of i."""
        x = torch.randn(32, 16)
        loss = (self.model(x) - x[:, :4]).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item()}

    def state_dict(self):
        """All that the next step depends on, and that is not a function of config, data and i."""
        return {"model": self.model.state_dict(), "optimizer": optimizer_state(self.optimizer, self.model)}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
'''

EMPTY_JOB = """# A job: what to train, and what you offer for it. docs/client.md of gpumarket has every field.
name: {name}
environment: {environment}
recipe: recipe.py:Mine
config:
  lr: 0.05
files: [recipe.py]  # and your data
steps: 400
checkpoint_every: 100  # you pay for checkpoints: some minutes of work each
# `gpumarket recipe measure` writes `units` here.

# The offer, in whole tokens.
max_price: "1"  # per checkpoint, at most
# stake: "20"
# budget: "10"
# deadline: 2030-01-31T12:00:00Z
"""


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(help="An example (see `gpumarket recipe list`); with --empty the folder", metavar="EXAMPLE")
    ],
    folder: Annotated[Path | None, typer.Argument(help="Where to put the job", show_default=False)] = None,
    empty: Annotated[bool, typer.Option("--empty", help="A small recipe to fill in, instead of an example")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Copy an example recipe with its job.yaml, and make its data; or with --empty DIR begin one of your own."""
    if empty:
        if folder is not None:
            raise UserError(f"--empty takes the folder only, and there are {name!r} and '{folder}'", "leave one out")
        target = Path(name)
    elif name not in recipes.NAMES:
        hint = f"choose from: {', '.join(recipes.NAMES)}; or begin your own: gpumarket recipe new --empty {name}"
        raise UserError(f"there is no example recipe {name!r}", hint)
    elif folder is None:
        raise UserError(f"no folder to put {name} into was given", f"gpumarket recipe new {name} ./{name}")
    else:
        target = folder
    with _whole_folder(target) as inside, PlainConsole(stderr=True).status("making the data"):
        files = _write_empty(inside, target.resolve().name) if empty else _copy_example(name, inside)
    if output is Output.JSON:
        console.print_json(write_json({"folder": str(target), "files": files}))
        return
    say(f"{target}: {', '.join(files)}")
    say(f"next: change what you like, gpumarket recipe measure {target}, gpumarket job submit {target}")


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write to, whose files are moved to `target` in the end; nothing is left if something is raised."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already, and not an empty folder", "choose another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UserError(f"can't make {target}: {error.strerror}", "choose another folder") from error
    try:
        yield made
        target.mkdir(exist_ok=True)  # or it is there and empty, such as the one that the shell is in
        for file in made.iterdir():
            file.replace(target / file.name)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write_empty(folder: Path, name: str) -> list[str]:
    job = EMPTY_JOB.format(name=write_json(name[:100] or "mine"), environment=environment_id())
    for file, text in (("recipe.py", EMPTY_RECIPE), ("job.yaml", job)):
        (folder / file).write_text(text, encoding="utf-8")
    return ["recipe.py", "job.yaml"]


def _copy_example(name: str, folder: Path) -> list[str]:
    for file in ("recipe.py", "job.yaml"):
        shutil.copyfile(recipes.FOLDER / name / file, folder / file)
    made = make_example_data(name, folder)
    job, spec = read_job(folder)
    if job.units is not None:  # who changes the recipe is told at submit to measure it again
        text = (folder / "job.yaml").read_text(encoding="utf-8")
        (folder / "job.yaml").write_text(set_units_of(text, work_hash(spec, job.units)), encoding="utf-8")
    return ["recipe.py", "job.yaml", *(file.name for file in made)]


def make_example_data(name: str, folder: Path) -> list[Path]:
    """Makes the data of a shipped recipe in `folder`; returns the files."""
    spec = spec_from_file_location(f"make_data_{name}", recipes.FOLDER / name / "make_data.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    with needed_by(f"making the data of {name}", "recipes"):
        files: list[Path] = module.make_data(folder)
    return files
