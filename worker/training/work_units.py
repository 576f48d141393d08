"""Counts a recipe's work: one unit is 1 MFLOP of the training step, as torch's FlopCounterMode counts it."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from contracts.types import UNIT_FLOPS
from worker.training.failures import Failure
from worker.training.recipe import Recipe
from worker.training.starting.seeding import seed_everything


class WorkCount(NamedTuple):
    flops: int  # of one step
    units: int  # of one checkpoint
    parameters: int  # elements of the modules' parameters


def count_work(make: Callable[[], Recipe], seed: int, checkpoint_every: int) -> WorkCount:
    """Counts step 1 of a throwaway recipe.

    Fused attention is counted in its plain form: torch has no count for the CPU's kernel, and the same job
    must have the same units on every device. Raises Failure("units") if there is nothing to count.
    """
    seed_everything(seed, 0)
    recipe = make()
    seed_everything(seed, 1)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        recipe.step(1)
    flops = int(counter.get_total_flops())
    if flops <= 0:
        raise Failure(
            "units",
            "step 1 does no floating-point work that torch's FlopCounterMode counts",
            "a training step multiplies matrices or convolves, in torch",
        )
    return WorkCount(flops, math.ceil(flops * checkpoint_every / UNIT_FLOPS), _parameters(recipe))


def _parameters(recipe: Recipe) -> int:
    modules = [value for value in vars(recipe).values() if isinstance(value, torch.nn.Module)]
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
