"""Puts the contracts on any chain, and goes on where a run was cut off; for `gpumarket deploy`."""
