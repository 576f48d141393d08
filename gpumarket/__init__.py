"""What users of gpumarket import in their own programs. All else is the project's own, and may move at any time."""

from importlib.util import find_spec

# A sandbox shows a recipe the packages that training needs, and of a checkout not the command's file.
if find_spec("gpumarket_entry") is not None:
    from gpumarket_entry import find_stranger

    if _stranger := find_stranger():
        raise ImportError("; ".join(_stranger))
