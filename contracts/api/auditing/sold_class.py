"""The numerics class that a lease's provider sells, as its signed Ask tells it. Pure."""

from contracts.api.bodies import AskOut
from contracts.errors import UserError
from contracts.orders import Domain


def sold_class(out: AskOut, domain: Domain, ask: str) -> str | None:
    """Of what a market shows as the Ask with this id; None if that tells none. Raises UserError if it is another: its
    provider can't help that.
    """
    if out.ask.digest(domain) != ask or out.resources.hash() != out.ask.resources:
        raise UserError(
            f"the market shows something else than the Ask {ask}",
            "ask its operator; until it shows the Ask, nothing of its leases is judged",
        )
    return out.resources.numerics
