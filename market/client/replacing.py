"""Whether a job's Bid is dead for good, by the chain alone, before another is signed for the same work."""

import time
from typing import NamedTuple

from contracts.api.bodies import JobOut, JobStatus
from contracts.api.client import MarketClient
from contracts.chain.client import Chain
from contracts.chain.events import Opened
from contracts.chain.lookup import accepted_tips, opened_for
from contracts.errors import UserError
from contracts.finality import KEPT_BLOCKS
from contracts.orders import Bid
from contracts.program.progress_bar import Watch, nobody
from contracts.terms import Phase

FINAL_SECONDS = 3600.0  # until blocks enough stand on top of what ended the Bid
POLL_SECONDS = 0.5
AGAIN = "Nothing new was signed. See `gpumarket job show`, and give the command again when its leases are over."


class Reached(NamedTuple):
    """From where another job would go on."""

    accepted: int
    tip: str  # of the last accepted checkpoint; the Bid's start tip if there is none


def check_not_replaced(market: MarketClient, job: JobOut, bid: Bid) -> None:
    """Raises UserError if another job of the client came after this one, whose Bid is dead, for what `bid` is for: as
    when a command is given again whose answer was lost.
    """
    for other in market.jobs(client=bid.client):
        is_same = (other.bid.job, other.bid.start_tip) == (bid.job, bid.start_tip)
        if not is_same or other.id == job.id or other.received <= job.received:
            continue
        if other.accepted or other.status not in (JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED):
            raise UserError(
                f"job {other.id[:12]} ({other.status}, {other.accepted} checkpoints accepted) goes on with job "
                f"{job.id[:12]} already",
                f"Nothing new was signed. To change its terms: gpumarket job reprice {other.id[:12]}",
            )


class OldBid:
    """A job's Bid as the chain has it. What the market says of the job must be the same."""

    def __init__(self, chain: Chain, job: JobOut) -> None:
        self._chain, self._job = chain, job
        self._leases: list[Opened] = []
        self._next = chain.settings.deploy_block  # to be searched

    def look(self, watch: Watch = nobody) -> Reached:
        """Raises UserError if a lease is not over, or leases or accepted checkpoints are not those of the market."""
        self._search(watch)
        job, name = self._job, f"job {self._job.id[:12]}"
        found, told = [one.lease for one in self._leases], [lease.id for lease in job.leases]
        if hidden := [lease for lease in found if lease not in told]:
            raise UserError(f"lease {hidden[0]} of {name} was opened on chain, and the market did not show it", AGAIN)
        if missing := [lease for lease in told if lease not in found]:
            raise UserError(
                f"the market shows lease {missing[0]} of {name}, which is not on chain",
                "Nothing new was signed: the node may lag behind the market. Try again in a moment.",
            )
        if found and self._chain.state(found[-1]).phase not in (Phase.NONE, Phase.CLOSED):
            raise UserError(f"lease {found[-1]} of {name} is not over on chain", AGAIN)
        reached = Reached(0, job.bid.start_tip)
        if found:
            reached = max(Reached(*one) for one in accepted_tips(self._chain, self._leases[-1], watch).items())
        if reached.accepted != job.accepted:
            raise UserError(
                f"of {name} {reached.accepted} checkpoints are accepted on chain, and the market said {job.accepted}",
                AGAIN,
            )
        return reached if reached.accepted else Reached(0, job.bid.start_tip)

    def wait_until_dead(self, watch: Watch = nobody) -> Reached:
        """Until what ended the Bid is as deep in the chain as all that it may cost wants. Raises UserError as above, or
        if that takes too long.
        """
        bid, eth = self._job.bid, self._chain.w3.eth
        depth = self._chain.settings.finality.confirmations(bid.max_price * bid.checkpoints + bid.stake)
        self.look(watch)
        first, late = int(eth.block_number), time.monotonic() + FINAL_SECONDS
        while True:
            head, before = int(eth.block_number), self._leases[-1:]
            if self._is_dead(max(0, head - depth)):
                reached = self.look(watch)
                if self._leases[-1:] == before:
                    return reached
            if time.monotonic() > late:
                raise UserError(
                    f"what ended the Bid of job {self._job.id[:12]} is not {depth} blocks deep in the chain yet",
                    "Nothing new was signed: give the command again in a while.",
                )
            watch("waiting for blocks on top of the Bid's end", min(head - first, depth), depth)
            time.sleep(POLL_SECONDS)

    def _search(self, watch: Watch) -> None:
        """For the job's leases, where that was not done, and where a reorganisation may have changed them since."""
        newest = int(self._chain.w3.eth.block_number)
        start = max(self._chain.settings.deploy_block, self._next - KEPT_BLOCKS)
        found = opened_for(self._chain, self._job.bid.client, start, newest, watch)
        self._leases = [one for one in self._leases if one.at.block < start]
        self._leases += [one for one in found if one.terms.parties.bid == self._job.id]
        self._next = newest + 1

    def _is_dead(self, block: int) -> bool:
        """Whether as of the end of a block no lease lives, and none can be opened after the newest that is known."""
        chain, bid = self._chain, self._job.bid
        has_passed = bid.valid_until < int(chain.w3.eth.get_block(block)["timestamp"])
        if not self._leases:
            # So deep there may be no escrow yet, on a chain that is young.
            is_there = bool(chain.w3.eth.get_code(chain.escrow.address, block))
            return has_passed or (is_there and chain.accounts([bid.client], block)[0].page > bid.page)
        newest = self._leases[-1]
        if newest.at.block > block:
            return False
        phase = chain.state(newest.lease, block).phase
        return phase is Phase.NONE or (has_passed and phase is Phase.CLOSED)
