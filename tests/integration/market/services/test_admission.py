"""What the market takes and refuses, on a real chain."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from contracts.api.access import Signer
from contracts.api.bodies import JobSummary
from contracts.api.info import RuleSet
from contracts.api.problems import Code
from contracts.audits.levels import OPEN
from contracts.chain.signatures import SignatureChecks
from market.store.models import BidRow
from tests.support.devnet import TOKEN, rpc
from tests.support.market_parts import (
    CPU,
    RECIPE,
    file_ref,
    forged,
    make_ask,
    make_bid,
    make_spec,
    sha256,
    signed_ask,
    signed_bid,
)
from tests.support.served_market import Stage

pytestmark = pytest.mark.mostly_sqlite


def test_orders_are_taken_and_shown(stage: Stage) -> None:
    ask, bid = stage.ask(), stage.bid()
    out, job = stage.api.post_ask(ask), stage.api.post_bid(bid)
    assert (out.status, job.status) == ("open", "pending")
    assert stage.api.post_bid(bid) == job
    assert list(stage.api.asks(status="open")) == [out]
    summary = JobSummary.model_validate(job.model_dump(exclude={"spec", "sealed_files"}))
    assert list(stage.api.jobs(client=stage.client.address)) == [summary]
    assert stage.api.account(stage.client.address).free == 100 * TOKEN


@pytest.mark.parametrize(
    ("kind", "changes", "code"),
    [
        ("ask", {"valid_until": 1}, Code.ORDER_EXPIRED),
        ("bid", {"valid_until": 1}, Code.ORDER_EXPIRED),
        ("ask", {"rules": "0x" + "11" * 32}, Code.RULES_UNKNOWN),
        ("bid", {"rules": "0x" + "11" * 32}, Code.RULES_UNKNOWN),
        ("ask", {"max_stake": 101 * TOKEN}, Code.STAKE_SHORT),
        ("bid", {"max_price": 26 * TOKEN}, Code.BALANCE_SHORT),
        ("bid", {"spec": make_spec(files={"recipe.py": file_ref(b"elsewhere")})}, Code.BLOB_MISSING),
        ("bid", {"matcher": "0x" + "11" * 20}, Code.ORDER_NOT_FOR_THIS_MARKET),
    ],
)
def test_refused_orders(stage: Stage, kind: str, changes: dict[str, Any], code: Code) -> None:
    body = getattr(stage, kind)(**changes)
    post = stage.api.post_ask if kind == "ask" else stage.api.post_bid
    stage.refuses(lambda: post(body), 422, code)


def test_forged_orders(stage: Stage) -> None:
    ask, bid = forged(stage.ask(), stage.domain, stage.client), forged(stage.bid(), stage.domain, stage.provider)
    stage.refuses(lambda: stage.api.post_ask(ask), 422, Code.ORDER_SIGNATURE_INVALID)
    stage.refuses(lambda: stage.api.post_bid(bid), 422, Code.ORDER_SIGNATURE_INVALID)


def test_orders_that_were_cancelled_on_chain(stage: Stage) -> None:
    ask, bid, waiting = stage.ask(), stage.bid(), stage.bid(nonce=1)
    job = stage.api.post_bid(waiting)
    stage.send(stage.client, stage.chain.raise_page(1))
    stage.send(stage.provider, stage.chain.raise_page(1))
    stage.refuses(lambda: stage.api.post_ask(ask), 422, Code.ORDER_CANCELLED)
    stage.refuses(lambda: stage.api.post_bid(bid), 422, Code.ORDER_CANCELLED)
    assert stage.api.job(job.id).status == "cancelled"
    assert stage.api.account(stage.client.address).next_nonce == 1 << 8


def test_a_nonce_that_a_lease_has_used(stage: Stage) -> None:
    stage.open(stage.api.post_bid(stage.bid()), stage.api.post_ask(stage.ask()))
    body = stage.bid(max_price=1_900_000)
    stage.refuses(lambda: stage.api.post_bid(body), 409, Code.ORDER_REPLAYED)


def test_a_blob_under_another_name(stage: Stage) -> None:
    response = stage.api._http.put(
        f"/v1/blobs/{sha256(b'a')}", content=b"b", headers=Signer(stage.client, stage.domain).writing()
    )
    assert (response.status_code, response.json()["code"]) == (400, "blob_mismatch")
    assert not stage.api_of(stage.client).has_blob(sha256(b"a"))


def test_a_path_out_of_the_job(stage: Stage) -> None:
    body = stage.bid().model_dump(mode="json", by_alias=True)
    body["spec"]["files"]["/etc/passwd"] = file_ref(RECIPE).model_dump()
    response = stage.api._http.post("/v1/bids", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    assert stage.count(BidRow) == 0


def test_a_wallet_contract_is_asked(stage: Stage) -> None:
    """Without ERC-1271 at the address, nobody else's signature is taken for it."""
    bid = make_bid(stage.client, stage.sender.address, stage.rules, stage.spec, client=stage.chain.token.address)
    body = signed_bid(bid, stage.domain, stage.client, stage.spec)
    stage.refuses(lambda: stage.api.post_bid(body), 422, Code.ORDER_SIGNATURE_INVALID)
    # A wallet that says yes to everything: returns the 4 bytes of isValidSignature, left-aligned.
    says_yes = "0x631626ba7e60e01b60005260206000f3"
    rpc(stage.chain, "anvil_setCode", stage.client.address, says_yes)
    body = forged(stage.bid(), stage.domain, stage.provider)
    assert stage.api.post_bid(body).status == "pending"


def test_equal_bids_at_once_are_one_that_is_new(stage: Stage) -> None:
    content, headers = stage.bid().model_dump_json(by_alias=True), {"content-type": "application/json"}
    url = f"{stage.api.url}/v1/bids"
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: httpx2.post(url, content=content, headers=headers, timeout=300), range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert stage.count(BidRow) == 1


def test_who_may_sell_under_audited_rules(stage: Stage) -> None:
    """A plain key, that wants them, for a machine whose class is told."""
    context, rules = stage.context, stage.rules.model_copy(update={"verification": OPEN.hash()})
    rule_set = RuleSet(name="open", hash=rules.struct_hash(), rules=rules, verification=OPEN)
    context.rules["open"] = context.rules_by_hash[rule_set.hash] = rule_set
    wants = CPU.wants.model_copy(update={"levels": ("unchecked", "closed")})
    picky = CPU.model_copy(update={"wants": wants})
    ask = make_ask(stage.provider, context.matcher, rules, picky)
    body = signed_ask(ask, stage.domain, stage.provider, picky)
    problem = stage.refuses(lambda: stage.api.post_ask(body), 422, Code.ORDER_TERMS_INVALID)
    assert "this provider wants unchecked or closed" in problem.message
    untold = signed_ask(make_ask(stage.provider, context.matcher, rules), stage.domain, stage.provider)
    problem = stage.refuses(lambda: stage.api.post_ask(untold), 422, Code.ORDER_TERMS_INVALID)
    assert "tell no numerics class, and the rules 'open' are audited" in problem.message
    assert problem.hint is not None and "gpumarket provider register" in problem.hint
    told = CPU.model_copy(update={"numerics": "0x" + "77" * 32})
    plain = signed_ask(make_ask(stage.provider, context.matcher, rules, told), stage.domain, stage.provider, told)
    rpc(stage.chain, "anvil_setCode", stage.provider.address, "0x600160005260206000f3")
    problem = stage.refuses(lambda: stage.api.post_ask(plain), 422, Code.ORDER_TERMS_INVALID)
    assert "is a contract, and the rules 'open' are audited" in problem.message
    assert stage.api.post_ask(stage.ask()).status == "open"  # unchecked rules
    rpc(stage.chain, "anvil_setCode", stage.provider.address, "0x")
    context.signatures = SignatureChecks(stage.chain)  # what it has heard before holds for a minute
    assert stage.api.post_ask(plain).status == "open"
