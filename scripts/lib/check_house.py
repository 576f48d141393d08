"""What import rules can't say of the house: folders of a size, one name for one thing, no hidden circles."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("contracts", "gpumarket", "market", "worker")
MOST_FILES = 18  # of code in one folder: more is a drawer
MOST_LINES = 400
# Named for what a user types or asks for, and imported by nobody: Typer's commands and FastAPI's routes.
ENTRIES = (".command(", ".callback(", "router.", ".exception_handler(", ".middleware(")
# What they import late is what a command's extra brings, or takes a second that others need not wait.
LATE = {"contracts/cli/main.py", "market/cli/market.py", "market/verify/cli.py"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *(f"{name}/*.py" for name in PACKAGES)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in sorted(set(listed.stdout.split())):
        path = ROOT / name
        if path.exists() and "/migrations/" not in name and "/recipes/" not in name:
            yield name, ast.parse(path.read_text(encoding="utf-8"), name)


def crowded(names: list[str]) -> Iterator[str]:
    folders = defaultdict(list)
    for name in names:
        folders[str(Path(name).parent)].append(name)
    for folder, inside in folders.items():
        files = [name for name in inside if not name.endswith("__init__.py")]
        if len(files) > MOST_FILES:
            yield f"{folder}/ has {len(files)} files of code, more than {MOST_FILES}: which of them belong together?"


def twins(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Public classes and functions of one name in several modules."""
    where = defaultdict(list)
    for name, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                marks = [ast.unparse(mark) for mark in node.decorator_list]
                if not any(entry in mark for entry in ENTRIES for mark in marks):
                    where[node.name].append(f"{name}:{node.lineno}")
    for twin, places in sorted(where.items()):
        if len(places) > 1:
            yield f"{twin} is several things: {', '.join(places)}. Only one of them keeps the name"


def hidden(name: str, tree: ast.Module) -> Iterator[str]:
    """Imports of our own that only run, or are only read, later: that is how circles hide."""
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "TYPE_CHECKING":
            yield f"{name}:{node.lineno}: TYPE_CHECKING hides an import; hand in what is needed instead"
        if isinstance(node, ast.ImportFrom) and id(node) not in top and name not in LATE and _is_ours(node):
            yield f"{name}:{node.lineno}: imports {node.module} late; import it at the top, or add the file to LATE"


def _is_ours(node: ast.ImportFrom) -> bool:
    return (node.module or "").split(".")[0] in PACKAGES


def long(name: str) -> Iterator[str]:
    lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
    if lines > MOST_LINES:
        yield f"{name} has {lines} lines, more than {MOST_LINES}: is it still one room?"


def main() -> int:
    trees = dict(modules())
    found = [*crowded(list(trees)), *twins(trees)]
    for name, tree in trees.items():
        found += [*hidden(name, tree), *long(name)]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
