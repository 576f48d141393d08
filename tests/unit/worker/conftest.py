"""Every test of the worker here can take `fake_driver`: GPUs that fail on demand."""

from tests.support.nvidia_driver import fake_driver

__all__ = ["fake_driver"]
