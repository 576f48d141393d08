"""What a recipe may import, today; docs/recipe-api.md describes it. Needs the extra `worker`, as training does.

A name that has been here keeps its meaning as long as API_VERSION is the same.
"""

from worker.training.optimizers import load_optimizer_state, optimizer_state
from worker.training.recipe import Recipe

__all__ = ["API_VERSION", "Recipe", "load_optimizer_state", "optimizer_state"]

API_VERSION = 2
