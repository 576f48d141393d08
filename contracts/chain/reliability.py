"""How reliable a provider has been, as a number that Bids can ask for. Pure: anyone can compute it from the chain.

It counts what a provider was paid for, how often it fell silent or got a void, and if it was found to have cheated;
under all rules, at all markets of one escrow. It is a record and no promise: whoever is its own client can earn one.
"""

from collections.abc import Mapping
from typing import NamedTuple

from contracts.chain.ledger import Ledger
from contracts.job.provider_wants import Standing

# Of tiers 1 to MAX_TIER of contracts.job.spec: least checkpoints accepted and paid, and leases for each that was late
# or void. (A void alone proves nothing: a client can write a recipe that makes one, at the price of its own time.)
STEPS = ((10, 5), (100, 10), (1_000, 50))


class Record(NamedTuple):
    """What the chain knows of a provider. The lease that it has now counts, too."""

    accepted: int = 0  # checkpoints that it was paid for
    leases: int = 0
    late: int = 0  # leases that were ended because it was silent, also if it was forgiven later
    convicted: int = 0  # leases in which a challenge was found right
    void: int = 0  # leases whose stake was burnt: others got something else, and the recipe may be to blame


NOBODY = Record()

FORGIVEN_BY = 20  # leases without, for each void of a client: who buys much meets a liar now and then
KNOWN_AFTER = 10  # checkpoints that a client has paid for


class ClientRecord(NamedTuple):
    """What the chain knows of a client."""

    paid: int = 0  # checkpoints
    leases: int = 0
    void: int = 0  # of them


def standing(record: ClientRecord) -> Standing:
    """What providers can ask for."""
    others = record.leases - record.void
    return Standing(max(0, record.void - others // FORGIVEN_BY), record.paid < KNOWN_AFTER)


def tier(record: Record) -> int:
    """0 (new, often late, or ever convicted) to 3: the highest whose step and all below it are reached."""
    if record.convicted:
        return 0
    reached = 0
    for accepted, leases in STEPS:
        if record.accepted < accepted or (record.late + record.void) * leases > record.leases:
            break
        reached += 1
    return reached


def records(ledger: Ledger) -> Mapping[str, Record]:
    """Of every provider that ever had a lease."""
    found: dict[str, Record] = {}
    for view in ledger.leases.values():
        before = found.get(view.terms.provider, NOBODY)
        found[view.terms.provider] = Record(
            before.accepted + view.settled - view.terms.nums.start,
            before.leases + 1,
            before.late + view.late,
            before.convicted + view.convicted,
            before.void + view.void,
        )
    return found


def client_records(ledger: Ledger) -> Mapping[str, ClientRecord]:
    """Of every client that ever had a lease."""
    found: dict[str, ClientRecord] = {}
    for view in ledger.leases.values():
        client = view.terms.parties.client
        before = found.get(client, ClientRecord())
        found[client] = ClientRecord(
            before.paid + view.settled - view.terms.nums.start, before.leases + 1, before.void + view.void
        )
    return found
