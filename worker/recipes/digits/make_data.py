"""Exports scikit-learn's copy of the UCI handwritten digits (1797 images of 8 x 8) to digits.npz."""

import sys
from pathlib import Path

import numpy as np


def make_data(folder: Path) -> list[Path]:
    """Writes the data into `folder`; returns the files."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    file = folder / "digits.npz"
    np.savez_compressed(file, images=images.reshape(-1, 8, 8).astype(np.uint8), labels=labels.astype(np.uint8))
    return [file]


if __name__ == "__main__":
    make_data(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
