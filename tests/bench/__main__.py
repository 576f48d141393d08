"""`python -m tests.bench NAME [--json]`; scripts/bench runs it."""

import argparse
import importlib
import sys
from pathlib import Path


def names() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Runs one benchmark.")
    parser.add_argument("name", nargs="?", help=", ".join(names()) or "none yet")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: name, value, unit")
    arguments = parser.parse_args()
    if arguments.name not in names():
        if arguments.name:
            print(f"bench: no benchmark '{arguments.name}'", file=sys.stderr)
        sys.exit(f"benchmarks: {', '.join(names()) or 'none yet'}")
    importlib.import_module(f"tests.bench.{arguments.name}").main(json=arguments.json)


if __name__ == "__main__":
    main()
