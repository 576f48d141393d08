"""How a node is asked, beside whatever else the process does."""

import json
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from web3.exceptions import Web3RPCError

from contracts.chain.asking.node import NodeRefused, ask, sure
from contracts.chain.client import Chain, connect
from contracts.chain.devnet.devnet import Devnet
from contracts.chain.errors import NODE_AWAY, EscrowError, explain_node
from contracts.chain.sending.sender import Sender
from contracts.chain.signatures import is_signed_by
from contracts.errors import UserError
from contracts.orders import new_account
from tests.support.devnet import TOKEN, Funded
from tests.support.limited_node import LimitedNode, NodeAnswer, connect_through, limited_node

__all__ = ["limited_node"]


def test_the_environment_may_change_meanwhile(chain: Chain) -> None:
    """Listing the variables, as requests does to find proxies, fails in Python while another thread removes one."""
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            os.environ["GPUMARKET_TEST_OF_THREADS"] = "1"
            del os.environ["GPUMARKET_TEST_OF_THREADS"]

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(200):
            assert chain.now() > 0
    finally:
        ended.set()
        changing.join()


@pytest.mark.parametrize(
    ("refusal", "most"),
    [
        (NodeAnswer(200, {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "batch too large"}}), 3),
        (NodeAnswer(200, [{"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "batch too large"}}]), 3),
        (NodeAnswer(400, "batch requests are for those who pay"), 1),
        (NodeAnswer(413, "Request Entity Too Large"), 7),
        (NodeAnswer(429, {"error": {"code": -32005, "message": "too many requests"}}, {"retry-after": "0"}), 1),
        (NodeAnswer(500, "<html><title>500 Internal Server Error</title></html>"), 2),
    ],
)
def test_batches_shrink_to_what_the_node_takes(
    chain: Chain, devnet: Devnet, limited_node: LimitedNode, refusal: NodeAnswer, most: int
) -> None:
    limited_node.allow_batch(most, refusal)
    limited = connect_through(limited_node, devnet)
    numbers = list(range(20))
    found = sure(ask(limited.w3, [("eth_getBlockByNumber", [hex(n % 5), False]) for n in numbers]))
    assert [int(block["number"], 16) for block in found] == [n % 5 for n in numbers]
    before = len(limited_node.asked)
    accounts = [new_account().address for _ in range(8)]
    assert limited.accounts(accounts) == chain.accounts(accounts)
    sizes = [len(asked) for asked in limited_node.asked[before:] if isinstance(asked, list)]
    assert all(size <= most for size in sizes)  # it was learned


def test_a_node_without_batches_is_good_enough_to_send(
    chain: Chain, devnet: Devnet, funded: Funded, limited_node: LimitedNode
) -> None:
    [alice] = funded(held=3 * TOKEN)
    limited_node.allow_batch(1, NodeAnswer(400, "no batches"))
    limited = connect_through(limited_node, devnet)
    sender = Sender(limited, alice)
    sender.send_many([limited.approve(TOKEN), limited.approve(2 * TOKEN)])
    sender.send(limited.deposit(alice.address, TOKEN))
    assert chain.account(alice.address).free == TOKEN


def test_retry_after_is_waited_for(devnet: Devnet, limited_node: LimitedNode) -> None:
    limited = connect_through(limited_node, devnet)
    limited_node.refuse_times(2, NodeAnswer(429, "slower", {"retry-after": "1"}))
    before = time.monotonic()
    assert limited.now() > 0
    assert time.monotonic() - before >= 2
    tomorrow = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    for late in ("86400", tomorrow):  # not that long
        limited_node.refuse_times(1, NodeAnswer(429, "slower", {"retry-after": late}))
        with pytest.raises(NodeRefused, match=r"HTTP status 429 .*: slower; it asks to wait 86\d+ s"):
            limited.now()


def test_asked_too_often_by_json_rpc(devnet: Devnet, limited_node: LimitedNode) -> None:
    """Some say it with HTTP status 200; no signature of a contract wallet is wrong because of it."""
    limited = connect_through(limited_node, devnet)
    error = {"code": -32007, "message": "15/second request limit reached - reduce calls per second: too many requests"}
    limited_node.refuse_times(2, NodeAnswer(200, {"jsonrpc": "2.0", "id": 1, "error": error}))
    assert limited.now() > 0
    limited_node.rule = lambda asked: (
        NodeAnswer(200, {"jsonrpc": "2.0", "id": 1, "error": error}, {"retry-after": "60"})
        if asked["method"] == "eth_call"
        else None
    )
    wallet = limited.escrow.address  # any contract
    with pytest.raises(NodeRefused, match="15/second request limit reached"):
        is_signed_by(limited, devnet.settings.rules["unchecked"], wallet, "0x" + "11" * 65)


@pytest.mark.parametrize(
    ("answer", "said", "hint"),
    [
        (NodeAnswer(400, "nonsense"), r"HTTP status 400 \(Bad Request\): nonsense", "docs/operations.md"),
        (NodeAnswer(401, {"error": "no project id"}), r"401 \(Unauthorized\): no project id", "access key"),
        (
            NodeAnswer(403, "<html><head><title>403 Forbidden</title></head>"),
            r"403 .*: 403 Forbidden",
            "key",
        ),
        (NodeAnswer(404, ""), r"404 \(Not Found\)$", "is the path of rpc_url"),
        (NodeAnswer(413, ""), r"413 ", "takes no request of this size"),
        (
            NodeAnswer(429, "slow", {"retry-after": "99"}),
            r"429 .*: slow; .* wait 99 s",
            "more often",
        ),
        (NodeAnswer(599, "hm"), r"HTTP status 599: hm", "docs/operations.md"),
        (NodeAnswer(200, "<html><title>Welcome</title></html>"), "something that is not JSON-RPC: Welcome", ""),
        (NodeAnswer(403, "no such key: 0123456789abcdef"), r"403 \(Forbidden\): no such key: \.\.\.$", "access key"),
        (NodeAnswer(400, "\x1b[31mred\nand more"), r"400 \(Bad Request\): \?\[31mred and more$", ""),
    ],
)
def test_what_a_node_answers_is_told(
    devnet: Devnet, limited_node: LimitedNode, answer: NodeAnswer, said: str, hint: str
) -> None:
    settings = devnet.settings.model_copy(update={"rpc_url": f"{limited_node.url}/v3/0123456789abcdef"})
    limited = connect(settings)
    limited_node.rule = lambda asked: answer
    with pytest.raises(UserError, match=said) as caught:
        connect(settings)
    assert "0123456789abcdef" not in f"{caught.value.message} {caught.value.hint}"
    assert hint in (caught.value.hint or "")
    with pytest.raises(NodeRefused, match=said) as later:
        limited.now()
    told = explain_node(later.value)
    assert told is not None
    assert (told.message, told.hint) == (caught.value.message, caught.value.hint)


def test_an_answer_with_a_status_is_an_answer(
    chain: Chain, devnet: Devnet, funded: Funded, limited_node: LimitedNode
) -> None:
    """Some nodes give a status to each error of JSON-RPC, a contract's refusal too."""
    [alice] = funded()
    limited = connect_through(limited_node, devnet)

    def with_status(asked: Any) -> NodeAnswer | None:
        answer = json.loads(limited_node.forward(json.dumps(asked).encode()))
        return NodeAnswer(400, answer) if isinstance(answer, dict) and "error" in answer else None

    limited_node.rule = with_status
    with pytest.raises(EscrowError, match="0 free in the escrow, 5 short of 5"):
        limited.dry_run(limited.withdraw(alice.address, 5), alice.address)
    with pytest.raises(Web3RPCError, match=r"HTTP status 400"):
        sure(ask(limited.w3, [("eth_getBlockByNumber", ["safest", False])]))


@pytest.mark.parametrize(
    "said", [{"result": None}, {"result": "0x"}, {"result": [1]}, {"error": "busy"}, {"error": {}}]
)
@pytest.mark.parametrize(
    ("method", "ask_for"),
    [
        ("eth_blockNumber", lambda chain: chain.w3.eth.block_number),
        ("eth_getBlockByNumber", lambda chain: chain.now()),
        ("eth_call", lambda chain: chain.account(chain.escrow.address)),
        ("eth_call", lambda chain: chain.accounts([chain.escrow.address])),
        ("eth_call", lambda chain: chain.accounts([chain.escrow.address, chain.token.address])),
        ("eth_getBalance", lambda chain: chain.w3.eth.get_balance(chain.escrow.address)),
        ("eth_chainId", lambda chain: chain.w3.eth.chain_id),
        ("eth_getLogs", lambda chain: chain.w3.eth.get_logs({"address": chain.escrow.address})),
    ],
)
def test_an_answer_of_another_form_is_the_nodes_trouble(
    devnet: Devnet, limited_node: LimitedNode, method: str, ask_for: Callable[[Chain], Any], said: Any
) -> None:
    """It is tried again by whoever goes on for long, and told in a sentence by who doesn't."""
    limited = connect_through(limited_node, devnet)
    limited_node.spoil(method, said)
    with pytest.raises(NODE_AWAY) as caught:
        ask_for(limited)
    told = explain_node(caught.value)
    assert told is not None and told.message.startswith("the Ethereum node")
    limited_node.rule = lambda asked: None
    assert ask_for(limited) is not None


def test_a_contracts_error_that_nobody_can_read(devnet: Devnet, limited_node: LimitedNode) -> None:
    """A stranger's wallet makes up what it reverts with: an URL to be fetched, a panic that there is not."""
    limited = connect_through(limited_node, devnet)
    for data in ("0x556f1830", "0x556f1830" + "ff" * 64, "0x4e487b71" + "99" * 32, "0x08c379a0" + "ff" * 64, "zz"):
        limited_node.spoil("eth_call", {"error": {"code": 3, "message": "execution reverted", "data": data}})
        assert not is_signed_by(limited, devnet.settings.rules["unchecked"], limited.escrow.address, "0x" + "11" * 65)
        with pytest.raises(EscrowError):
            limited.dry_run(limited.withdraw(limited.escrow.address, 5), limited.escrow.address)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_is_named(devnet: Devnet, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://user:hidden@127.0.0.1:1")
    with pytest.raises(UserError) as caught:
        connect(devnet.settings)
    assert caught.value.message == (
        f"no Ethereum node answers at {devnet.settings.rpc_url}: the proxy http://127.0.0.1:1 (${variable}), through "
        "which it is asked, accepts no connections"
    )
    assert "NO_PROXY=127.0.0.1" in (caught.value.hint or "")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert connect(devnet.settings).now() > 0


def test_a_proxy_that_answers_itself(
    devnet: Devnet, limited_node: LimitedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", limited_node.url)
    limited_node.rule = lambda asked: NodeAnswer(407, "who are you?")
    with pytest.raises(
        UserError, match=r"407 .*who are you\?; it is asked through the proxy .*\(\$HTTP_PROXY\)"
    ) as caught:
        connect(devnet.settings)
    assert "NO_PROXY=127.0.0.1" in (caught.value.hint or "")
