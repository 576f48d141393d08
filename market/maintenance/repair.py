"""What `gpumarket reconcile --fix` mends: rows that journal, blobs and chain say otherwise. Nothing that was only told
to the market is deleted, and no money moves; what is left after it, an operator must look at."""

import time
from collections.abc import Iterator

from contracts.chain.client import Chain
from contracts.job.file import hash_file
from contracts.program.progress_bar import Watch, nobody
from market.maintenance import reindex
from market.maintenance.reconcile import SECONDS_BETWEEN
from market.maintenance.reindex import Difference
from market.store.blobs import BlobStore
from market.store.db import Database
from market.store.models import BlobRow


def find_repairs(chain: Chain, db: Database, blobs: BlobStore, watch: Watch = nobody) -> list[Difference]:
    """What can be mended: seen twice, some time apart, because in a market that runs rows change meanwhile."""
    first, _ = reindex.look(db, chain, blobs, watch)
    if not first:
        return []
    time.sleep(SECONDS_BETWEEN)
    again, _ = reindex.look(db, chain, blobs, watch)
    return [one for one in again if one in first and _is_safe(one, blobs)]


def fix(chain: Chain, db: Database, blobs: BlobStore, watch: Watch = nobody) -> Iterator[str]:
    """Mends it, and says what it was."""
    for one in reindex.mend(db, find_repairs(chain, db, blobs, watch)):
        yield str(one)


def _is_safe(one: Difference, blobs: BlobStore) -> bool:
    if one.after is None:
        return one.table.name in reindex.FROM_CHAIN_AND_FILES
    if one.table.name == BlobRow.__tablename__:  # a file may be under a name that is not its own
        name = str(one.key[0])
        return hash_file(blobs.path(name)).sha256 == name
    return True
