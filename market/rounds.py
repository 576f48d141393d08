"""The loop of the market's threads that do the same thing again and again."""

import threading
from collections.abc import Callable

import structlog

from contracts.errors import UserError

log = structlog.get_logger()


def repeat(name: str, one_round: Callable[[], object], stop: threading.Event, seconds: float) -> None:
    """Rounds until `stop`. An outage or a bug ends one round, not the loop: the next one starts from what is stored."""
    while not stop.is_set():
        try:
            one_round()
        except UserError as error:
            log.warning(f"{name}.retry", problem=error.message)
        except Exception:
            log.exception(f"{name}.failed")
        stop.wait(seconds)
