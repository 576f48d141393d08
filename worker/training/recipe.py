"""A recipe: a job's training program, a class of the shape that PyTorch users know. And how it is loaded."""

import importlib.util
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from worker.training.failures import Failure

METHODS = ("step", "state_dict", "load_state_dict")
_module_numbers = count(1)


class Recipe(Protocol):
    """What a job's `recipe: path.py:Class` must offer.

    Before each call of `step` every generator (Python's `random`, numpy, torch) is seeded from the job's
    seed and the step's number, and before the constructor from step 0. Whatever else a step depends on must
    be in the state: a recipe rebuilt from `config`, `data` and a checkpoint must go on bit for bit as if it
    had never stopped.
    """

    def __init__(self, config: dict[str, Any], data: Mapping[str, Path]) -> None:
        """`config` is the job's; `data` maps each path in the job's `files` to where it is."""

    def step(self, i: int) -> Mapping[str, float]:
        """Training step i, from 1: forward, backward, optimizer. Returns metrics, such as {"loss": 0.3}."""

    def state_dict(self) -> Mapping[str, Any]:
        """Tensors and numbers by name, optimizer included; flat or nested. See gpumarket.recipe for optimizers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what state_dict returned, nested as it was; a number is a number again, of the same kind."""

    # Optional. `evaluate(self) -> Mapping[str, float]`: run after each checkpoint's last step, without gradients and
    # under that step's seed. It may not change the state. Its metrics become the checkpoint's, as `eval_NAME`.
    # `load_weights(self, tensors: Mapping[str, Any]) -> None`: takes the file that the job names in `start`, before
    # step 1; without it load_state_dict gets that.


def load_recipe(recipe: str, folder: Path) -> type[Recipe]:
    """The class that `path.py:Class` names, from a fresh import of that file in `folder`.

    Raises Failure of kind "recipe".
    """
    path, colon, class_name = recipe.rpartition(":")
    if not (colon and path.endswith(".py") and class_name.isidentifier()):
        raise Failure("recipe", f"recipe is {recipe!r}", "write it as path.py:Class, such as recipe.py:Digits")
    module = _import_file(folder / path, shown=path)
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [name for name, value in vars(module).items() if _defined_here(value, module)]
        raise Failure(
            "recipe",
            f"{path} has no class {class_name!r}",
            f"it has {', '.join(classes)}: name one in `recipe:`" if classes else "define it, or name the right file",
        )
    missing = [name for name in METHODS if not callable(getattr(found, name, None))]
    if missing:
        raise Failure(
            "recipe",
            f"{path}: class {class_name} lacks {', '.join(missing)}",
            f"a recipe needs {', '.join(METHODS)}; see docs/recipe-api.md",
        )
    return found


def _defined_here(value: Any, module: ModuleType) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def _import_file(file: Path, shown: str) -> ModuleType:
    if not file.is_file():
        raise Failure("recipe", f"there is no file {shown!r} in the job's folder", "list it in the job's `files`")
    name = f"gpumarket_recipe_{next(_module_numbers)}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Failure("recipe", f"{shown} can't be imported as Python", "recipes are .py files")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look classes up by their module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise Failure("recipe", f"{shown} line {error.lineno}: {error.msg}", "correct the syntax") from error
    except ModuleNotFoundError as error:
        raise Failure(
            "recipe",
            f"{shown} imports {error.name!r}, which this environment lacks",
            "docs/environments.md lists what an environment contains",
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        raise Failure("recipe", f"importing {shown} raised {type(error).__name__}: {error}") from error
    return module
