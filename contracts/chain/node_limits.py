"""What a node allows, as far as it matters here: found by asking it as our programs do."""

from typing import NamedTuple

from contracts.chain.asking.log_reader import MOST_BLOCKS
from contracts.chain.asking.node import BATCH, NodeProvider, ask, sure
from contracts.chain.client import Chain

SLOW_BLOCKS, SLOW_BATCH = 1_000, 10


class NodeLimits(NamedTuple):
    blocks: int  # the chain's newest ones whose logs it gave at once; all there are on a short chain
    wanted_blocks: int
    batch: int  # questions that it answered at once, of BATCH

    @property
    def slow(self) -> bool:
        """Whether to read a long chain from it takes long."""
        return self.blocks < min(SLOW_BLOCKS, self.wanted_blocks) or self.batch < SLOW_BATCH


def find_limits(chain: Chain) -> NodeLimits:
    """Raises NodeRefused if it does not even give the logs of one block, NodeSilent."""
    newest = int(chain.w3.eth.block_number)
    wanted = min(MOST_BLOCKS, newest - chain.settings.deploy_block + 1)
    first = newest - wanted + 1
    got = chain.logs.next_range({"address": chain.escrow.address}, first, newest).end - first + 1
    sure(ask(chain.w3, [("eth_getBlockByNumber", [hex(newest), False])] * BATCH))
    provider = chain.w3.provider
    return NodeLimits(got, wanted, provider.batch.size if isinstance(provider, NodeProvider) else BATCH)
