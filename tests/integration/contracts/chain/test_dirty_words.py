"""Orders whose words have bits beyond their types, signed as they stand: all who read the chain must survive them."""

from typing import Any

from eth_abi.abi import encode
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from web3 import Web3

from contracts.chain.calls import SignedMatch, order_abi
from contracts.chain.client import Chain
from contracts.chain.events import Opened, RulesUsed
from contracts.chain.follower import read_events
from contracts.chain.ledger import Ledger
from contracts.orders import Ask, Bid, Rules, SignedType, compact_signature
from contracts.types import ZERO_ADDRESS, ZERO_HASH, from_hex, to_hex
from tests.support.devnet import TOKEN, Funded

DIRT = 0xD1


def encoded(order: SignedType, dirty: bool) -> bytes:
    """Its words, with a bit too many in each that has room for one."""
    kinds = [kind for kind, _ in order.TYPE]
    raw = encode(kinds, order_abi(order))
    words = [bytearray(raw[at : at + 32]) for at in range(0, len(raw), 32)]
    for kind, word in zip(kinds, words, strict=True):
        if dirty and kind == "bytes20":
            word[31] = DIRT
        elif dirty and kind != "bytes32":
            word[0] = DIRT
    return b"".join(words)


def digest(chain: Chain, order: SignedType, words: bytes) -> bytes:
    name = type(order).__name__
    typehash = keccak(text=f"{name}({','.join(f'{kind} {field}' for kind, field in order.TYPE)})")
    data = chain.escrow.functions.eip712Domain().call()
    kinds = ["bytes32", "bytes32", "bytes32", "uint256", "address"]
    head = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
    domain = keccak(encode(kinds, [head, keccak(text=data[1]), keccak(text=data[2]), data[3], data[4]]))
    return keccak(b"\x19\x01" + domain + keccak(typehash + words))


def sign(digest: bytes, account: LocalAccount) -> str:
    signed = account.unsafe_sign_hash(digest)
    return to_hex(compact_signature(signed.r, signed.s, signed.v - 27))


def test_they_are_read_by_their_types(chain: Chain, funded: Funded) -> None:
    client, provider, matcher = funded(3, free=100 * TOKEN)
    rules = Rules(
        arbiter=chain.settings.arbiter, arbiter_fee=TOKEN, arbiter_timeout=50, checkpoint_timeout=40, window=20,
        verification=ZERO_HASH,
    )  # fmt: skip
    dirty_rules = encoded(rules, dirty=True)
    typehash = keccak(text=f"Rules({','.join(f'{kind} {field}' for kind, field in Rules.TYPE)})")
    rules_hash = to_hex(keccak(typehash + dirty_rules))
    bid = Bid(
        client=client.address, matcher=matcher.address, approver=ZERO_ADDRESS, job="0x" + "ab" * 32, rules=rules_hash,
        checkpoints=3, units=10, max_price=2_000, fee=7, stake=2 * TOKEN, valid_until=(1 << 40) - 1, nonce=0,
    )  # fmt: skip
    ask = Ask(
        provider=provider.address, matcher=ZERO_ADDRESS, resources=ZERO_HASH, rules=rules_hash, price_per_hour=900,
        units_per_hour=10, max_stake=10 * TOKEN, max_active=3, max_checkpoints=2, valid_from=0,
        valid_until=(1 << 40) - 1, page=0,
    )  # fmt: skip
    words = {order: encoded(order, dirty=True) for order in (bid, ask)}
    signatures = [sign(digest(chain, one, words[one]), who) for one, who in ((bid, client), (ask, provider))]
    item = SignedMatch(bid, ask, 1_003, *signatures)
    data = from_hex(chain.open(rules, item)._encode_transaction_data())
    for order, kept in ((bid, words[bid]), (ask, words[ask])):
        clean = encoded(order.model_copy(update={"rules": ZERO_HASH}), dirty=False)
        assert data.count(clean) == 1
        data = data.replace(clean, kept)
    data = data.replace(encoded(rules, dirty=False), dirty_rules)

    transaction: Any = {"from": matcher.address, "to": chain.escrow.address, "data": to_hex(data), "gas": 1_000_000}
    transaction |= {"nonce": chain.w3.eth.get_transaction_count(matcher.address), "chainId": chain.domain.chain_id}
    transaction |= {"maxFeePerGas": Web3.to_wei(10, "gwei"), "maxPriorityFeePerGas": 1}
    raw = matcher.sign_transaction(transaction).raw_transaction
    assert chain.w3.eth.wait_for_transaction_receipt(chain.w3.eth.send_raw_transaction(raw))["status"] == 1

    events = read_events(chain)
    [opened] = [event for event in events if isinstance(event, Opened)]
    assert (opened.provider, opened.client) == (provider.address, client.address)
    assert opened.terms.lease == opened.lease
    assert (opened.terms.nums.end, opened.terms.nums.ask_price, opened.terms.parties.stake) == (2, 900, 2 * TOKEN)
    used = [event for event in events if isinstance(event, RulesUsed) and event.hash == rules_hash]
    assert [one.rules for one in used] == [rules]
    ledger = Ledger()
    ledger.apply_all(events)
    assert ledger.leases[opened.lease].agrees(chain.state(opened.lease))
    assert ledger.account(client.address).free == chain.account(client.address).free
