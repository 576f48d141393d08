"""Makes corpus.txt, a megabyte of English and Python: the standard library of the Python that runs this."""

import sys
import sysconfig
from pathlib import Path

LIMIT = 1_000_000  # bytes


def make_data(folder: Path) -> list[Path]:
    """Writes the data into `folder`; returns the files."""
    library = Path(sysconfig.get_path("stdlib"))
    corpus = bytearray()
    for source in sorted(library.glob("*.py")):
        corpus += source.read_bytes() + b"\n"
        if len(corpus) >= LIMIT:
            break
    file = folder / "corpus.txt"
    file.write_bytes(corpus[:LIMIT])
    return [file]


if __name__ == "__main__":
    make_data(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
