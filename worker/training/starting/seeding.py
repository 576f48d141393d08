"""Makes a step's bits a function of its number: seeds, deterministic kernels, fixed threads."""

import random
import warnings

import numpy as np
import torch

from contracts.commitment import step_seed


def pin(threads: int) -> None:
    """Fixes the number of threads, and makes torch refuse what is not deterministic. Call it first."""
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True), without importing the compiler
    torch.backends.cudnn.benchmark = False
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")


def seed_everything(seed: int, step: int) -> None:
    """Seeds Python, numpy and torch (CPU and CUDA) for one step; step 0 is the recipe's construction."""
    value = step_seed(seed, step)
    random.seed(value)
    np.random.seed([value & 0xFFFFFFFF, value >> 32])
    # What torch.manual_seed does for these devices; it takes 0.2 ms for others that are not here.
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(value)
