"""See the package's docstring."""

import sys

from tests.liars import clients, others, providers  # noqa: F401 - they name themselves
from tests.liars.kinds import KINDS


def run_as(name: str, arguments: list[str]) -> None:
    """`gpumarket ...` in this process, with one part replaced."""
    from contracts.cli.main import main as run

    KINDS[name]().lie()
    sys.argv = ["gpumarket", *arguments]
    run()


def show_all() -> None:
    width = max(map(len, KINDS))
    for name, make in sorted(KINDS.items()):
        one = make()
        print(f"{name:<{width}}  {one.summary}\n{'':<{width}}  replaces: {one.patched}")


def main() -> int:
    wanted = sys.argv[1:]
    if not wanted or wanted == ["list"]:
        show_all()
        return 0
    if wanted[0] == "as":
        run_as(wanted[1], wanted[2:])
        return 0
    brief = "--brief" in wanted
    wanted = [word for word in wanted if word != "--brief"]
    names = sorted(KINDS) if wanted == ["all"] else wanted
    if unknown := [name for name in names if name not in KINDS]:
        print(f"no kind of liar is named {unknown[0]!r}; there are: all, list, {', '.join(KINDS)}", file=sys.stderr)
        return 2
    from tests.liars.trial import run

    failed = run([KINDS[name]() for name in names], brief)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
