"""Whether an epoch was committed to before its coin was tossed, and which coin it was."""

from contracts.api.epochs import EpochHeader, EpochOut, epoch_root
from contracts.chain.events import EpochPublished
from market.matching.inputs import tick
from market.verify.findings import Findings, Lie, Note
from market.verify.history import Node
from market.verify.published import OrderSet

MOST_SECONDS = 300  # by which the market's clock may be ahead of the block in which an epoch is published


def check_header(
    header: EpochHeader, number: int, market: str, committed: EpochPublished | None, node: Node
) -> Findings:
    name = f"the header of epoch {number}"
    domain = node.domain
    for what, said, is_so in (
        ("epoch", header.number, number),
        ("market", header.market, market),
        ("chain", header.chain_id, domain.chain_id),
        ("escrow", header.escrow, domain.verifying_contract),
        ("tick", header.tick, tick(node.decimals)),
    ):
        if said != is_so:
            yield Lie(f"{name} says {what} {said}, but it is {is_so}")
    of_orders = node.block(header.block)
    if of_orders is None or of_orders.hash != header.block_hash:
        found = "there is none" if of_orders is None else f"it is {of_orders.hash}"
        yield Lie(f"{name} says that block {header.block} has the hash {header.block_hash}, but on the chain {found}")
    elif header.time < of_orders.timestamp:
        yield Lie(f"{name} says time {header.time}, but its block {header.block} is of {of_orders.timestamp}")
    if committed is not None and header.time > committed.at.timestamp + MOST_SECONDS:
        yield Lie(f"{name} says time {header.time}, but it was published at {committed.at.timestamp} already")
    if committed is not None and header.block >= committed.at.block:
        yield Lie(f"{name} counts block {header.block}, but it was published in block {committed.at.block} already")
    hashes = [rules.struct_hash() for rules in header.rules]
    if hashes != sorted(set(hashes)):
        yield Lie(f"{name} has rules twice, or not by ascending hash")


def check_root(orders: OrderSet, committed: EpochPublished | None) -> Findings:
    """That header and orders are those that were committed to."""
    found = epoch_root(orders.header, orders.ids)
    if committed is None:
        yield Lie(f"epoch {orders.number} was never published on chain; its orders have the root {found}")
    elif found != committed.order_set_root:
        yield Lie(
            f"epoch {orders.number}'s header and orders have the root {found}, but {committed.order_set_root} was "
            f"published in block {committed.at.block}: they are not what the market committed to"
        )


def check_seed(epoch: EpochOut, committed: EpochPublished, node: Node) -> Findings:
    """That the coin is the hash of the block after the commitment's."""
    following = node.block(committed.at.block + 1)
    if following is None:
        yield Lie(
            f"epoch {epoch.number} has a seed, but there is no block yet after {committed.at.block} to take it of"
        )
    elif (epoch.seed_block, epoch.seed) != (following.number, following.hash):
        yield Lie(
            f"epoch {epoch.number} was cleared with the seed {epoch.seed} of block {epoch.seed_block}, but the block "
            f"after the one in which it was published is {following.number}, with the hash {following.hash}"
        )


def never_committed(epoch: EpochOut) -> Note:
    return Note(f"epoch {epoch.number} was given up before it was committed to: nothing could come of it")


def check_given_up(epoch: EpochOut, committed: EpochPublished, node: Node) -> Findings:
    """An epoch that was committed to and never cleared."""
    seed = node.block(committed.at.block + 1)
    coin = f", which was {seed.hash}" if seed else ""
    yield Note(
        f"epoch {epoch.number} was given up after it had been published in block {committed.at.block}: its market may "
        f"have stopped just then, or have disliked its coin{coin}; look at how often that happens"
    )
