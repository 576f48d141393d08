"""What users of gpumarket import in their own programs. All else is the project's own, and may move at any time."""

from gpumarket_entry import find_stranger

if _stranger := find_stranger():
    raise ImportError("; ".join(_stranger))
