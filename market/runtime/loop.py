"""The loop of the leader's threads that do the same thing again and again."""

import threading
from collections.abc import Callable

import structlog

from contracts.errors import UserError
from market.runtime.context import Context
from market.runtime.leader import RENEW_SECONDS
from market.store.db import OUTAGE

log = structlog.get_logger()


def repeat(
    context: Context, name: str, one_round: Callable[[Context], object], stop: threading.Event, seconds: float
) -> None:
    """Rounds until `stop`, while this process leads.

    An outage or a bug ends one round, not the loop: the next one starts from what is stored.
    """
    while not stop.is_set():
        try:
            if context.leads:
                one_round(context)
        except UserError as error:
            log.warning(f"{name}.retry", problem=error.message)
        except OUTAGE as error:
            log.warning(f"{name}.database_silent", problem=str(error.orig)[:300])
        except Exception:
            log.exception(f"{name}.failed")
        stop.wait(seconds if context.leads else min(seconds, RENEW_SECONDS))
