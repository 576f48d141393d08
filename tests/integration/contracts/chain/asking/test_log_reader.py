"""Logs from nodes that limit how much they give at once."""

from typing import Any

import pytest

from contracts.chain.asking.node import NodeRefused, Portion
from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from contracts.chain.errors import NODE_AWAY, explain_node
from contracts.chain.events import Deposited
from contracts.chain.follower import read_events
from tests.support.devnet import TOKEN, Funded, rpc
from tests.support.limited_node import LimitedNode, connect_through, limited_node

__all__ = ["limited_node"]

PAGE = "<html><head><title>400 Bad Request</title></head><body>nginx</body></html>"


@pytest.mark.parametrize(
    ("status", "error", "headers"),
    [
        (200, {"code": -32600, "message": "up to a 100 block range"}, {}),
        (200, {"code": -32005, "message": "query returned more than 10000 results"}, {}),
        (200, {"code": -32005, "message": "limit exceeded"}, {}),
        (200, {"code": -32602, "message": "block range is too wide"}, {}),
        (200, {"code": -32000, "message": "exceed maximum block range: 100"}, {}),
        (200, {"code": -32016, "message": "Log response size exceeded: too many results"}, {}),
        (200, "something else entirely", {}),
        (400, {"code": -32600, "message": "up to a 100 block range"}, {}),
        (400, PAGE, {}),
        (403, "ranges are for those who pay", {}),
        (413, "Request Entity Too Large", {}),
        (429, {"code": -32005, "message": "too many results"}, {"retry-after": "0"}),
        (429, "slower", {"retry-after": "3600"}),
        (429, "slower", {}),
        (500, {"code": -32000, "message": "query timeout exceeded"}, {}),
        (503, "the range is too large", {}),
        (200, "block range too wide", {}),
        (200, {"code": -32005}, {}),
        (200, {}, {}),
        (200, "[" * 200_000, {}),
        (207, "[]", {}),
        (404, '{"error": {"code": -32601, "message": "not for you"}}', {}),
        (400, '{"error": "the range is too wide"}', {}),
        (200, "not compressed", {"content-encoding": "gzip"}),
        (200, "an answer that is cut off", {"content-length": "9999", "connection": "close"}),
    ],
)
def test_a_range_shrinks_at_any_refusal(
    chain: Chain, devnet: Devnet, funded: Funded, limited_node: LimitedNode, status: int, error: Any, headers: Any
) -> None:
    rpc(chain, "anvil_mine", "0x12c")
    [alice] = funded(free=5 * TOKEN)
    rpc(chain, "anvil_mine", "0x64")
    limited_node.allow_blocks(100, status, error, headers)
    limited = connect_through(limited_node, devnet)
    newest = int(chain.w3.eth.block_number)
    which: Any = {"address": chain.escrow.address}
    assert limited.logs.logs(which, 0, newest) == chain.logs.logs(which, 0, newest) != []
    asked = limited_node.ranges()
    assert asked[0] > 100
    taken = [blocks for blocks in asked if blocks <= 100]
    assert sum(taken) == newest + 1  # goes on where it stopped
    # What it has learned holds for all who read.
    before = len(asked)
    events = read_events(limited)
    assert [event.amount for event in events if isinstance(event, Deposited) and event.account == alice.address] == [
        5 * TOKEN
    ]
    assert max(limited_node.ranges()[before:]) <= 100


LOG = {
    "address": "0x" + "11" * 20,
    "topics": [],
    "data": "0x",
    "blockNumber": "0x1",
    "blockHash": "0x" + "22" * 32,
    "transactionHash": "0x" + "33" * 32,
    "logIndex": "0x0",
}
ODD = [
    {"result": None},
    {"result": {}},
    {"result": "0x"},
    {"result": 5},
    {"result": float("nan")},
    {"result": [None]},
    {"result": [{**LOG, "blockNumber": "zz"}]},
    {"result": [{**LOG, "logIndex": None}]},
    {"error": "block range too wide"},
    {"error": {"code": -32005}},
    {"error": {}},
    {"error": [1]},
    {"error": None},
    {"id": 99_999, "result": []},
    {},
]


@pytest.mark.parametrize("said", ODD)
def test_no_odd_answer_is_taken_for_no_logs(
    chain: Chain, devnet: Devnet, funded: Funded, limited_node: LimitedNode, said: Any
) -> None:
    [_] = funded(free=5 * TOKEN)
    limited = connect_through(limited_node, devnet)
    newest = int(chain.w3.eth.block_number)
    which: Any = {"address": chain.escrow.address}
    limited_node.spoil("eth_getLogs", said, times=2)
    assert limited.logs.logs(which, 0, newest) == chain.logs.logs(which, 0, newest) != []
    limited_node.spoil("eth_getLogs", said)
    with pytest.raises(NodeRefused, match="the logs of a single block are refused: the Ethereum node") as caught:
        limited.logs.logs(which, 0, newest)
    assert "that was block 0;" in str(caught.value.hint)


def test_a_range_grows_again(chain: Chain, devnet: Devnet, limited_node: LimitedNode) -> None:
    """A node that was short of memory for a while is not asked for single blocks for good."""
    rpc(chain, "anvil_mine", "0x190")
    limited = connect_through(limited_node, devnet)
    limited_node.allow_blocks(3, 400, {"code": -32000, "message": "not now"})
    newest = int(chain.w3.eth.block_number)
    which: Any = {"address": chain.escrow.address}
    limited.logs.logs(which, 0, 60)
    limited_node.rule = lambda asked: None
    before = len(limited_node.ranges())
    limited.logs.logs(which, 0, newest)
    assert max(limited_node.ranges()[before:]) > 6


@pytest.mark.parametrize("status", [200, 400, 429, 502])
def test_a_node_that_does_not_even_give_one_block(
    chain: Chain, devnet: Devnet, limited_node: LimitedNode, status: int
) -> None:
    limited_node.allow_blocks(0, status, {"code": -32601, "message": "eth_getLogs is not for you"})
    limited = connect_through(limited_node, devnet)
    with pytest.raises(
        NodeRefused, match=r"the logs of a single block are refused.*eth_getLogs is not for you"
    ) as caught:
        limited.logs.logs({"address": chain.escrow.address}, 7, 50)
    assert isinstance(caught.value, NODE_AWAY)  # so it is tried again by whoever goes on for long
    told = explain_node(caught.value)
    assert told is not None and told.message == caught.value.message
    assert "that was block 7;" in (told.hint or "") and "docs/operations.md" in (told.hint or "")
    if status != 200:
        assert f"HTTP status {status}" in told.message


def test_a_search_tells_how_far_it_is(chain: Chain, devnet: Devnet, limited_node: LimitedNode) -> None:
    rpc(chain, "anvil_mine", "0x32")
    limited_node.allow_blocks(10, 400, "no")
    seen: list[tuple[str, int, int | None]] = []
    limited = connect_through(limited_node, devnet)
    limited.logs.logs(
        {"address": chain.escrow.address}, 0, 49, lambda what, done=0, total=None: seen.append((what, done, total))
    )
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1] == ("blocks searched", 50, 50)
    assert len(seen) >= 5


def test_what_takes_too_long_shrinks_faster() -> None:
    """Each try costs a timeout."""
    portion = Portion(10_000)
    sizes = []
    while portion.size > 1:
        portion.refused(portion.size, NodeRefused("it took longer than 30 s", "", None))
        sizes.append(portion.size)
    assert sizes == [1000, 100, 10, 1]
    portion = Portion(100)
    portion.refused(100, NodeRefused("too many", "", 400))
    assert portion.size == 50
    portion.refused(100, NodeRefused("too many", "", 400))  # another thread's, from before
    assert portion.size == 50
