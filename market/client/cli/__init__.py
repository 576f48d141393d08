"""gpumarket job and gpumarket offer."""
