"""The gpumarket command, and the commands that need no extra."""
