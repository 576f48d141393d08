"""What passes as a node's answer, and what is told of what doesn't."""

import json
from typing import Any

import pytest

from contracts.chain.asking.answers import OddAnswer, checked_answer, checked_error, shown

LOG: dict[str, Any] = {
    "address": "0x" + "11" * 20,
    "topics": ["0x" + "22" * 32],
    "data": "0x",
    "blockNumber": "0x1",
    "blockHash": "0x" + "44" * 32,
    "transactionHash": "0x" + "33" * 32,
    "transactionIndex": "0x0",
    "logIndex": "0x0",
}
BLOCK: dict[str, Any] = {
    "number": "0x1",
    "hash": "0x" + "44" * 32,
    "parentHash": "0x" + "55" * 32,
    "timestamp": "0x65",
}
LATEST = ["latest", False]


def checked(method: str, result: Any, parameters: Any = ()) -> Any:
    return checked_answer({"jsonrpc": "2.0", "id": 1, "result": result}, 1, method, list(parameters))["result"]


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("method", "parameters", "result", "told"),
    [
        ("eth_getLogs", [], None, r"eth_getLogs with what is none of its results \(a list is due\): null$"),
        ("eth_getLogs", [], {}, r"a list is due\): \{\}$"),
        ("eth_getLogs", [], "0x", r"a list is due\): 0x$"),
        ("eth_getLogs", [], 5, "a list is due"),
        ("eth_getLogs", [], float("nan"), r"a list is due\): nan"),
        ("eth_getLogs", [], [None], r"an object is due\): \[null\]"),
        ("eth_getLogs", [], [LOG, {**LOG, "blockNumber": "zz"}], "blockNumber: a number in hex is due"),
        ("eth_getLogs", [], [{**LOG, "blockNumber": None}], "blockNumber: a number in hex is due"),
        ("eth_getLogs", [], [{**LOG, "blockNumber": True}], "blockNumber: a number in hex is due"),
        ("eth_getLogs", [], [{**LOG, "blockNumber": "0x8000000000000000"}], "blockNumber: .* less than 64 bits"),
        ("eth_getLogs", [], [{**LOG, "topics": None}], "topics: a list of topics is due"),
        ("eth_getLogs", [], [{**LOG, "topics": ["0x22"]}], "topics: 32 bytes in hex are due"),
        ("eth_getLogs", [], [{**LOG, "data": "0x123"}], "data: bytes in hex are due"),
        ("eth_getLogs", [], [{**LOG, "address": "0x" + "11" * 21}], "address: 20 bytes in hex are due"),
        ("eth_getLogs", [], [{key: LOG[key] for key in LOG if key != "logIndex"}], "it has no logIndex"),
        ("eth_getLogs", [], deep(900), "an object is due"),
        ("eth_blockNumber", [], None, r"a number in hex is due\): null"),
        ("eth_blockNumber", [], "0x", "a number in hex is due"),
        ("eth_blockNumber", [], -1, "a number in hex is due"),
        ("eth_blockNumber", [], [1], "a number in hex is due"),
        ("eth_getBlockByNumber", LATEST, None, r"an object is due\): null"),
        ("eth_getBlockByNumber", LATEST, "0x1", "an object is due"),
        ("eth_getBlockByNumber", LATEST, {**BLOCK, "hash": None}, "hash: 32 bytes in hex are due"),
        ("eth_getBlockByNumber", ["0x1", False], {}, "it has no number"),
        ("eth_call", [], None, "bytes in hex are due"),
        ("eth_call", [], "0xzz", "bytes in hex are due"),
        ("eth_getBalance", [], "0x" + "f" * 65, "a number in hex is due"),
        ("eth_getTransactionReceipt", ["0x"], "pending", "an object is due"),
        ("eth_sendRawTransaction", [], None, "32 bytes in hex are due"),
    ],
)
def test_results_of_another_form(method: str, parameters: Any, result: Any, told: str) -> None:
    with pytest.raises(OddAnswer, match=told) as caught:
        checked(method, result, parameters)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_results_of_their_form() -> None:
    assert checked("eth_getLogs", []) == []
    assert checked("eth_getLogs", [{**LOG, "blockTimestamp": "?", "removed": None}]) == [LOG]
    assert checked("eth_blockNumber", 17) == "0x11"  # some nodes write numbers as numbers
    assert checked("eth_getBlockByNumber", {**BLOCK, "extraData": 5}, LATEST) == BLOCK
    assert checked("eth_getBlockByNumber", None, ["0x1", False]) is None  # it may not be there yet
    assert checked("eth_getTransactionReceipt", None, ["0x"]) is None
    assert checked("eth_call", "0x") == "0x"
    assert checked("web3_clientVersion", ["as it is"]) == ["as it is"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("block range too wide", -32000, "block range too wide"),
        ({"code": -32005}, -32005, 'an error without words: {"code": -32005}'),
        ({}, -32000, "an error without words: {}"),
        ([1], -32000, "an error without words: [1]"),
        (True, -32000, "an error without words: true"),
        ({"code": "x", "message": "too\nwide\x1b"}, -32000, "too wide?"),
        (
            {"code": True, "message": {"en": "no"}},
            -32000,
            'an error without words: {"code": true, "message": {"en": "no"}}',
        ),
        ({"code": 3, "message": "m" * 5000}, 3, "m" * 200),
    ],
)
def test_errors_of_any_form(error: Any, code: int, message: str) -> None:
    answer = checked_answer({"error": error}, 1, "eth_getLogs", [])
    assert answer == {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}
    assert checked_error(answer["error"]) == answer["error"]  # done twice, it is the same


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ("0x12345678", "0x12345678"),
        ("Reverted 0x12345678", "0x12345678"),
        ({"data": "0x12345678"}, "0x12345678"),
        ("see our docs", None),
        ({"see": "our docs"}, None),
        ("0x", None),
        ([1], None),
    ],
)
def test_only_what_a_contract_says_is_kept_beside_an_error(data: Any, kept: str | None) -> None:
    found = checked_error({"code": 3, "message": "execution reverted", "data": data})
    assert found.get("data") == (None if kept is None else {"data": kept})


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"jsonrpc": "2.0", "id": 1}, r'something that is not JSON-RPC: \{"jsonrpc": "2.0", "id": 1\}'),
        ({"a": 1}, "something that is not JSON-RPC"),
        ({"id": 1, "error": None}, "something that is not JSON-RPC"),
        ([{"id": 1, "result": "0x1"}], "not one question but several"),
        ({"id": 2, "result": "0x1"}, "another question than eth_blockNumber: it has the id 2, not 1"),
    ],
)
def test_what_is_no_answer(said: Any, told: str) -> None:
    with pytest.raises(OddAnswer, match=told):
        checked_answer(said, 1, "eth_blockNumber", [])


def test_answers_that_are_less_than_exact() -> None:
    for said in ({"result": "0x1"}, {"id": "1", "result": "0x1"}, {"id": None, "error": None, "result": "0x1"}):
        assert checked_answer(said, 1, "eth_blockNumber", [])["result"] == "0x1"


def test_of_what_is_large_the_beginning_is_shown() -> None:
    assert shown(deep(100_000)) == '[[[[["..."]]]]]'
    assert shown([7] * 1_000_000) == "[7, 7, 7, 7, 7, 7, 7, 7, 7, 7]"
    assert len(shown({"a" * 5000: "b" * 5000})) == 200
    assert shown(json.loads('{"a": null}')) == '{"a": null}'
