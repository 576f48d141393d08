"""Lines of Markdown end at column 120, but for tables, code, and what could only be cut within a link's address."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

COLUMNS = 120
ROOT = Path(__file__).resolve().parents[2]

FENCE = re.compile(r"\s*(```+|~~~+)")
MARKER = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")  # of a list's item
ADDRESS = re.compile(r"\]\(|https?://")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are neither in a table nor code, with their numbers from 1."""
    fence = ""
    inside = 0  # columns that the text of a list's item is indented by
    paragraph = False  # whether the line before is one of prose: after that no indented code begins
    for number, line in enumerate(text.splitlines(), 1):
        opened = FENCE.match(line)
        if fence or opened:
            if opened is not None and (not fence or line.strip() == fence):
                fence = "" if fence else opened[1]
            paragraph = False
            continue
        if not line.strip():
            paragraph = False
            continue
        indent = len(line) - len(line.lstrip())
        marker = MARKER.match(line)
        if not paragraph:
            if indent < inside and not marker:
                inside = 0
            if indent >= inside + 4:
                continue
        if marker:
            inside = marker.end()
        if line.lstrip().startswith("|"):
            continue
        paragraph = True
        yield number, line


def can_be_shorter(line: str) -> bool:
    """Whether it could end at a space before, or its one word is no link."""
    marker = MARKER.match(line)
    words = line[marker.end() :].split() if marker else line.split()
    return len(words) > 1 or not ADDRESS.search(line)


def too_long(text: str) -> Iterator[tuple[int, int]]:
    """Number and columns of each line that is too long."""
    for number, line in prose(text):
        if len(line) > COLUMNS and can_be_shorter(line):
            yield number, len(line)


def main() -> None:
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
    found = False
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if not file.exists():
            continue  # removed, and not committed yet
        for number, columns in too_long(file.read_text(encoding="utf-8")):
            print(f"{name}:{number}: {columns} columns")
            found = True
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
