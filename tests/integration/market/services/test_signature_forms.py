"""A v of 0 or 1, as some wallets write it, from the Bid to the money: the escrow takes what the market kept."""

from typing import Any

import pytest
from eth_account.signers.local import LocalAccount

from contracts.types import to_hex
from tests.support.devnet import rpc
from tests.support.market_parts import make_record, signed_approval, signed_progress
from tests.support.served_market import Stage, stage

__all__ = ["stage"]
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def with_small_v(stage: Stage, body: Any, message: Any, key: LocalAccount) -> Any:
    signed = key.sign_message(message.signable(stage.domain))
    parts = signed.r.to_bytes(32, "big") + signed.s.to_bytes(32, "big") + bytes([signed.v - 27])
    return body.model_copy(update={"signature": to_hex(parts)})


def test_from_the_bid_to_the_money(stage: Stage) -> None:
    bid, ask = stage.bid(), stage.ask()
    job = stage.api.post_bid(with_small_v(stage, bid, bid.bid, stage.client))
    offered = stage.api.post_ask(with_small_v(stage, ask, ask.ask, stage.provider))
    lease = stage.open(job, offered)
    record = make_record(job.bid.job, 1, lease.state.tip)
    progress = signed_progress(lease.id, record, stage.domain, stage.provider)
    posted = stage.api.post_progress(with_small_v(stage, progress, progress.claim, stage.provider))
    terms = stage.terms(lease.id)
    stage.send(stage.client, stage.chain.claim_signed(terms, [record.root], posted.signature))
    approval = signed_approval(lease.id, 1, record.tip, stage.domain, stage.client)
    kept = stage.api.post_approval(with_small_v(stage, approval, approval.approval, stage.client)).approval
    assert kept is not None
    stage.send(stage.provider, stage.chain.redeem(terms, kept.approval, kept.signature))
    assert stage.api.job(job.id).paid == 1_000_000


def test_a_contract_wallets_signature_is_kept_as_it_is(stage: Stage) -> None:
    """Its forms are its own: a 65th byte of 0 or 1 may be anything."""
    says_yes = "0x631626ba7e60e01b60005260206000f3"
    rpc(stage.chain, "anvil_setCode", stage.client.address, says_yes)
    bid = stage.bid()
    theirs = with_small_v(stage, bid, bid.bid, stage.provider)  # not the wallet's key
    assert stage.api.post_bid(theirs).signature == theirs.signature
