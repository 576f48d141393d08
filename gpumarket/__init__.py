"""What users of gpumarket import in their own programs. All else is the project's own, and may move at any time."""
