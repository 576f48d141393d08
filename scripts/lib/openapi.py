"""Writes docs/openapi.json, the market's API; with --check, fails if the file is not what the code gives."""

import argparse
import json
import sys
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    arguments = parser.parse_args()
    try:
        from market.api.app import create_app
    except ModuleNotFoundError as error:
        if error.name not in ("market.api", "market.api.app"):
            raise
        print("openapi: nothing to do: no market.api.app yet", file=sys.stderr)
        return
    content = json.dumps(create_app().openapi(), indent=1, sort_keys=True) + "\n"
    if not arguments.check:
        DOCUMENT.write_text(content)
    elif not DOCUMENT.exists() or DOCUMENT.read_text() != content:
        sys.exit("openapi: docs/openapi.json is out of date: run scripts/openapi and commit the result")


if __name__ == "__main__":
    main()
