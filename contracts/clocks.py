"""Three clocks that may differ: this machine's, the market's, and the chain's (its newest block's time). Pure."""

from datetime import UTC, datetime

from contracts.errors import UserError

CHAIN_SECONDS = 3600  # that a chain may be ahead of this machine; one without traffic may be behind for long
TOKEN_LIFE = 600  # seconds that an access token made here is good for, by the clock of who makes it
TOKENS_AHEAD = 60  # seconds that the clock of a token's maker may be ahead of the market's, however long it is good for
REPORTS_APART = 300  # seconds that a report's time may be from the market's
WORTH_A_WORD = 60
TOKEN_SECONDS = TOKEN_LIFE - WORTH_A_WORD  # within which a market takes tokens that were signed by another clock
REPORT_SECONDS = REPORTS_APART - WORTH_A_WORD  # and reports
YEAR_10000 = 253_402_300_800  # UTC seconds
SET_IT = "set this machine's clock: timedatectl set-ntp true"


def check_clocks(here: float, market: float | None, chain: float | None = None, most: float = TOKEN_SECONDS) -> None:
    """Raises UserError, with all the differences, if what is signed here would be refused for its times.

    All are UTC seconds; None: not known. `most`: what the market's clock may differ by.
    """
    market_is_off = market is not None and abs(here - market) > most
    chain_is_off = chain is not None and chain - here > CHAIN_SECONDS
    if not market_is_off and not chain_is_off:
        return
    others = [("the market's clock", market), ("the chain's newest block", chain)]
    told = [clock_difference(here, other, name) for name, other in others if other is not None]
    if market is not None and chain is not None and abs(market - chain) <= WORTH_A_WORD:
        told.append("those two agree")
    elif market is not None and chain is not None and not market_is_off:
        hint = "the market and this machine agree: it is the chain's time that is ahead; is this the right node?"
        raise UserError(f"clocks differ: this machine's says {utc_text(here)}, {', '.join(told)}", hint)
    hint = f"{SET_IT}; if it is right, tell the market's operator about theirs"
    raise UserError(f"clocks differ: this machine's says {utc_text(here)}, {', '.join(told)}", hint)


def clock_difference(here: float, other: float, name: str, least: float = WORTH_A_WORD) -> str:
    """Such as "2 h ahead of the market's clock"."""
    if abs(here - other) < least:
        return f"as {name} does"
    return f"{_span(abs(here - other))} {'ahead of' if here > other else 'behind'} {name}"


def _span(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{round(hours / 24)} days"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def utc_text(seconds: float) -> str:
    """UTC seconds as people read them. Orders and contracts count on to the year 36812."""
    if seconds >= YEAR_10000:
        return "after the year 9999"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
