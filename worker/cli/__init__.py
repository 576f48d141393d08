"""gpumarket provider and gpumarket recipe."""
