"""The key of a sealed job, as its client has granted it to the approver."""

import pytest

from contracts.api.grants import make_grant, public_key
from contracts.errors import UserError
from contracts.job.sealing import new_job_key, seal
from contracts.terms import Parties
from contracts.types import ZERO_HASH
from market.approver.job_keys import JobKeys
from tests.support.market_parts import RECIPE, file_ref, make_bid, make_spec, sha256, signed_bid, upload
from tests.support.stepped_market import Lives

pytestmark = pytest.mark.mostly_sqlite


@pytest.mark.parametrize("is_right", [True, False])
def test_a_key_that_opens_nothing_is_told(market: Lives, is_right: bool) -> None:
    """With it honest work would look like bytes that nobody can read, and be challenged."""
    chain, client, approver = market.chain, market.client, market.approver_key
    job_key = new_job_key()
    granted = job_key if is_right else new_job_key()
    spec, sealed = make_spec(sealed=True), b"".join(seal([RECIPE], job_key))
    upload(market.context, client.address, sealed)
    bid = make_bid(client, market.context.matcher, market.rules, spec, approver=approver.address)
    id, reader = bid.digest(chain.domain), public_key(market.encryption)
    grants = [
        make_grant(chain.domain, client, id, approver.address, reader, granted),
        make_grant(chain.domain, client, id, client.address, reader, job_key),
    ]
    files = {sha256(RECIPE): file_ref(sealed)}
    body = signed_bid(bid, chain.domain, client, spec)
    market.api.post_bid(body.model_copy(update={"sealed_files": files, "grants": grants}))
    parties = Parties(
        id, bid.job, ZERO_HASH, bid.rules, bid.client, approver.address, bid.matcher, bid.stake
    )  # fmt: skip
    keys = JobKeys(market.api_of(approver), chain, approver, market.encryption)
    if is_right:
        assert keys.of(parties) == job_key
        return
    with pytest.raises(UserError) as told:
        keys.of(parties)
    assert told.value.message == f"the key that was granted for the sealed job {id} does not open its files"
    assert "hands the job in again" in (told.value.hint or "")
