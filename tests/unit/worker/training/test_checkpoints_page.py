"""docs/checkpoints.md, line by line, on a checkpoint of the shipped example."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from contracts.job.file import parse_job_file
from gpumarket.checkpoints import load_state
from tests.support import ROOT
from worker import recipes
from worker.cli.new_recipe import make_example_data
from worker.training.state import flatten, write_checkpoint

PAGE = ROOT / "docs" / "checkpoints.md"
# The page's checkpoint is what training would have made; a recipe that has done two steps has all that it has.
MAKE = """
import sys
sys.path.insert(0, "digits")
from pathlib import Path
from recipe import Digits
from worker.training.state import flatten, write_checkpoint
recipe = Digits({config}, {{"digits.npz": Path("digits/digits.npz")}})
for i in (1, 2):
    recipe.step(i)
write_checkpoint(Path("checkpoints/checkpoint-00006.safetensors"), flatten(recipe.state_dict()))
"""


def python(folder: Path, script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "checkpoints").mkdir()
    shutil.copyfile(recipes.FOLDER / "digits" / "recipe.py", tmp_path / "digits" / "recipe.py")
    make_example_data("digits", tmp_path / "digits")
    job = parse_job_file((recipes.FOLDER / "digits" / "job.yaml").read_text())
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    blocks = [block for block in blocks if not block.startswith("def ")]
    assert len(blocks) == 5
    given = re.search(r"^config = (.*)$", "\n".join(blocks), re.MULTILINE)
    assert given and eval(given[1]) == job.config  # the page's own line
    python(tmp_path, MAKE.format(config=given[1]))
    printed = python(tmp_path, "\n".join(blocks))
    assert "model/" in printed and "dict_keys(" in printed and "'loss': " in printed
    assert (tmp_path / "model.safetensors").is_file()


def test_the_state_comes_back_as_the_recipe_had_it(tmp_path: Path) -> None:
    state = {"seen": 7, "best": 0.5, "name": "abc", "none": None, "list": [1, 2.5, True], "empty": {}}
    write_checkpoint(tmp_path / "state.safetensors", flatten(state))
    assert load_state(str(tmp_path / "state.safetensors")) == state
