"""What every test shares: marks by folder, `--long`, and Hypothesis profiles."""

import sys
from pathlib import Path

import hypothesis
import pytest
import structlog

import contracts  # noqa: F401 - before anything that imports eth_account: contracts.late_modules

# The default renderer shows all variables of all frames: seconds for each traceback. And what a market in this process
# logs must not stand among what a command prints.
_PLAIN = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
structlog.configure(
    processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _PLAIN],
    logger_factory=structlog.PrintLoggerFactory(sys.__stderr__),
)

# The same examples in every run: a failure in CI is a failure here. `--long` searches further, at random.
hypothesis.settings.register_profile("default", derandomize=True, deadline=None, max_examples=100)
hypothesis.settings.register_profile("long", deadline=None, max_examples=2_000, print_blob=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also tests marked long; more Hypothesis examples")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "default")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    for item in items:
        room = item.path.relative_to(tests).parts[0] if item.path.is_relative_to(tests) else ""
        if room in ("integration", "e2e"):
            item.add_marker(room)
        if config.getoption("--long"):
            continue
        if "long" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes: run with --long"))
        if "mostly_sqlite" in item.keywords and "[postgresql" in item.name:
            item.add_marker(pytest.mark.skip(reason="the database is not what it tests: run with --long"))
    spread_whole_markets(items)


def spread_whole_markets(items: list[pytest.Item]) -> None:
    """The longest tests begin at once, beside one another: xdist's processes start with equal slices, in order."""
    whole = [item for item in items if "e2e" in item.keywords]
    items[:] = [item for item in items if "e2e" not in item.keywords]
    for number, item in enumerate(whole):
        # Not at a slice's very edge, where rounding could make it the last of the one before.
        items.insert(number * len(items) // len(whole) + 2 * bool(number), item)
