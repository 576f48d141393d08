"""Every test of the worker here can take `stage_of`: whole markets, each with its own seconds; and `fake_driver`: GPUs
that fail on demand."""

from tests.support.nvidia_driver import fake_driver
from tests.support.whole_market import stage_of

__all__ = ["fake_driver", "stage_of"]
