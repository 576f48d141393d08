"""What the checkpoints before a lease measured, for the job's early stop. docs/protocol.md section 1."""

from contracts.api.bodies import CheckpointStatus
from contracts.api.client import MarketClient
from contracts.job.spec import JobSpec
from worker.lease.folder import LeaseFolder


def metrics_so_far(market: MarketClient, folder: LeaseFolder, spec: JobSpec) -> list[dict[str, float]]:
    """Of checkpoints 1 .. made: this machine's own, and those before its base as the market has them.

    Empty for jobs without `stop`. No tip commits to a record's metrics; a market that forges them can only end the
    job early or late, and it could as well not match it.
    """
    if spec.stop is None:
        return []
    file = folder.file
    own = {index: folder.checkpoint(index).metrics for index in range(file.base + 1, file.made + 1)}
    if file.base:
        for out in market.checkpoints(file.parties.bid):
            if out.status is CheckpointStatus.APPROVED and out.checkpoint.index <= file.base:
                own[out.checkpoint.index] = out.checkpoint.metrics
    return [own.get(index, {}) for index in range(1, file.made + 1)]
