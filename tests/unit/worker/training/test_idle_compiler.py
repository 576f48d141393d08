"""torch's compiler is there for whoever compiles, and for nobody else. In programs of their own: they begin without."""

import subprocess
import sys

import pytest

PREPARED = """
import sys
import torch
from contracts.late_modules import LateModule
from worker.training.starting.idle_compiler import put_off_compiler
from worker.training.starting.seeding import pin
def is_idle(): return isinstance(sys.modules["torch._dynamo"], LateModule)
put_off_compiler()
pin(1)
assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.Adam([weight])
def step():
    optimizer.zero_grad()
    (weight * weight).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
step()
assert is_idle()
"""


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", PREPARED + program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_optimizers_do_without() -> None:
    run("""
from torch.utils.flop_counter import FlopCounterMode
with FlopCounterMode(display=False):
    torch.nn.Linear(3, 3)(weight).sum().backward()
import inspect
inspect.getmodule(sys._getframe())
assert is_idle()
""")


@pytest.mark.parametrize("statement", ["", "import torch._dynamo.utils"])
def test_who_compiles_gets_it(statement: str) -> None:
    run(f"""
{statement}
double = torch.compile(lambda x: 2 * x, backend="eager")
assert double(torch.ones(2)).tolist() == [2, 2] and not is_idle()
assert torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.utils is sys.modules["torch._dynamo.utils"]
assert torch._dynamo.utils.graph_break_reasons is torch._dynamo.graph_break_reasons  # not run twice
step()  # whose functions were called without it, too
compiled = torch.compile(step, backend="eager")
before = weight.detach().clone()
compiled()
assert not torch.equal(before, weight)
""")


def test_the_compiler_is_deterministic_where_training_is() -> None:
    from worker.sandbox.gpus import training_environment

    done = subprocess.run(
        [sys.executable, "-c", "import torch._inductor.config as config; assert config.deterministic"],
        env=training_environment(1, (), "/tmp"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
