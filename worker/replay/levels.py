"""What a lease's rules promise about replays, from whoever shows it: the hash tells that it is that."""

from contracts.api.client import MarketClient
from contracts.audits.levels import BEFORE, BY_HASH, UNCHECKED
from contracts.audits.verification import Verification
from contracts.orders import Rules
from contracts.settings import Settings


def find_verification(market: MarketClient, settings: Settings, rules: Rules) -> Verification | None:
    """What the rules commit to; None if neither these settings nor the market have its JSON."""
    hash = rules.verification
    if hash in BEFORE:
        return UNCHECKED
    known = {one.hash(): one for one in settings.verifications.values()} | BY_HASH
    if hash not in known:
        known |= {one.verification.hash(): one.verification for one in market.info().rules if one.verification}
    return known.get(hash)
