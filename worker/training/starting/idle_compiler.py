"""torch's compiler, where nothing is compiled: its optimizers import it at their first step, which takes 1.7 s."""

import functools
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

from contracts.late_modules import LateModule

COMPILER = "torch._dynamo"


def put_off_compiler() -> None:
    """Optimizers tell the compiler where a graph ends, and which functions it shall not look into; until somebody asks
    it for more there is no graph. `torch.compile` gets the compiler itself."""
    LateModule(COMPILER, disable=_disable, graph_break=_no_graph_breaks).stand_in()


def _no_graph_breaks(msg: str = "") -> None:
    pass


def _disable(fn: Any = None, recursive: bool = True, **options: Any) -> Any:
    """torch._dynamo.disable, as torch uses it for its own functions."""
    if not isinstance(fn, FunctionType):
        return _compiler().disable(fn, recursive, **options)
    disabled: list[Callable[..., Any]] = []  # by the compiler, once it is there

    @functools.wraps(fn)
    def call(*arguments: Any, **named: Any) -> Any:
        if isinstance(sys.modules.get(COMPILER), LateModule):
            return fn(*arguments, **named)
        if not disabled:
            disabled.append(_compiler().disable(fn, recursive, **options))
        return disabled[0](*arguments, **named)

    return call


def _compiler() -> Any:
    found = sys.modules[COMPILER]
    return found.module() if isinstance(found, LateModule) else found
