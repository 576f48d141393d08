"""Exceptions are told by the recipe's own lines, and by what the sandbox had to do with them."""

import errno
import linecache
from pathlib import Path

import pytest

from worker.training.explain import recipe_trace, sandbox_hint
from worker.training.failures import Failure, not_finite

RECIPE = """\
def inner():
    raise ValueError("no luck")


def outer():
    try:
        inner()
    except ValueError as error:
        raise TypeError("worse") from error


def deep(n):
    return deep(n + 1)
"""


def raised(folder: Path, call: str) -> BaseException:
    file = folder / "recipe.py"
    file.write_text(RECIPE)
    linecache.checkcache()
    names: dict[str, object] = {}
    exec(compile(RECIPE, str(file), "exec"), names)
    try:
        eval(call, names)
    except (ValueError, TypeError, RecursionError) as error:
        return error
    raise AssertionError


def test_what_led_to_an_exception_is_shown_before_it(tmp_path: Path) -> None:
    trace = recipe_trace(raised(tmp_path, "outer()"), tmp_path)
    assert trace.index("ValueError: no luck") < trace.index("TypeError: worse")
    assert '  File "recipe.py", line 2, in inner\n    raise ValueError("no luck")\n' in trace
    assert str(tmp_path) not in trace and __file__ not in trace


def test_a_failure_shows_where_its_cause_was_raised(tmp_path: Path) -> None:
    failure = Failure("state", "load_state_dict raised ValueError: no luck")
    failure.__cause__ = raised(tmp_path, "inner()")
    assert recipe_trace(failure, tmp_path).endswith("ValueError: no luck\n")


def test_a_recursion_is_short(tmp_path: Path) -> None:
    trace = recipe_trace(raised(tmp_path, "deep(0)"), tmp_path)
    assert "Previous line repeated" in trace and len(trace) < 1000


def test_what_is_not_the_recipe_s_has_no_trace(tmp_path: Path) -> None:
    assert recipe_trace(Failure("nan", "step 1: loss is nan"), tmp_path) == ""


class ConnectTimeout(Exception):
    """Of a library that is not installed here."""


ConnectTimeout.__module__ = "requests.exceptions"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectTimeout("timed out"), "no network"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "no network"),
        (OSError(errno.EMFILE, "Too many open files"), "1024 files"),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), "can be written to"),
        (PermissionError(errno.EPERM, "Operation not permitted"), "refuses what no training needs"),
        (OSError(errno.ENOSYS, "Function not implemented"), "refuses what no training needs"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "fewer workers"),
        (RuntimeError("unable to write to file </torch_12_3>: No space left on device (28)"), "of 256 MB each"),
        (RuntimeError("Found no NVIDIA driver on your system"), "torch.cuda.is_available()"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x/train.bin"), "open data['data/train.bin']"),
        (ValueError("no luck"), None),
        (KeyError("WANDB_API_KEY"), None),  # of some dict
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), None),
    ],
)
def test_hints(error: BaseException, said: str | None) -> None:
    hint = sandbox_hint(error, ["recipe.py", "data/train.bin"])
    assert hint is None if said is None else hint and said in hint, hint


def test_a_hint_is_found_in_what_led_to_an_exception() -> None:
    error = RuntimeError("can't load the tokenizer")
    error.__cause__ = ConnectionError("refused")
    assert sandbox_hint(error, []) and "no network" in str(sandbox_hint(error, []))


@pytest.mark.parametrize(
    ("name", "clamped"), [("grad_norm", True), ("gnorm/total", True), ("loss_scale", True), ("loss", False)]
)
def test_what_loss_scaling_makes_infinite_is_not_the_learning_rate(name: str, clamped: bool) -> None:
    failure = not_finite(name, float("inf"), 3)
    assert failure.message == f"step 3: {name} is inf"
    assert failure.hint and ("loss scaling" in failure.hint) is clamped
