"""Each refusal has a sentence."""

import re
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from contracts.chain import artifacts
from contracts.chain.errors import EscrowError, Refusal, decode_revert
from tests.support import ROOT

INTERFACE = ROOT / "contracts" / "src" / "interfaces" / "IEscrow.sol"
SAMPLES: dict[str, Any] = {
    "uint256": 1_700_000_000, "uint8": 2, "uint32": 7, "address": "0x" + "11" * 20, "bytes32": b"\x22" * 32,
    "bytes20": b"\x33" * 20, "string": "text", "uint64": 9,
}  # fmt: skip
OURS = [
    item
    for name in ("Escrow", "EpochLog")
    for item in artifacts.load_artifact(name).abi
    if item["type"] == "error" and item["name"].startswith(("Escrow_", "EpochLog_"))
]


@pytest.mark.parametrize("item", OURS, ids=lambda item: item["name"])
def test_every_error_is_decoded_to_a_sentence(item: dict[str, Any]) -> None:
    types = [value["type"] for value in item["inputs"]]
    selector = keccak(f"{item['name']}({','.join(types)})".encode())[:4]
    error = decode_revert(selector + encode(types, [SAMPLES[kind] for kind in types]))
    assert error is not None and error.name == item["name"]
    assert list(error.values) == [value["name"] for value in item["inputs"]]
    assert item["name"] not in error.message


def test_reasons_are_those_of_the_interface() -> None:
    source = INTERFACE.read_text()
    [body] = re.findall(r"enum Reason \{(.*?)\}", source, re.DOTALL)
    names = [name.strip() for name in re.sub(r"//.*", "", body).split(",")]
    assert [name.replace("_", "").lower() for name in Refusal.__members__] == [name.lower() for name in names]
    assert len({reason.sentence for reason in Refusal}) == len(Refusal)


def test_a_refusal_names_its_reason() -> None:
    error = EscrowError("Escrow_Refused", {"reason": 17})
    assert error.reason is Refusal.BALANCE_SHORT
    assert error.message.startswith("refused: the client's free balance does not cover")


def test_what_is_no_error_of_ours() -> None:
    assert decode_revert("0x") is None
    assert decode_revert("0xdeadbeef") is None
    truncated = keccak(b"Escrow_Refused(uint8)")[:4]
    assert decode_revert(truncated) is None


def test_plain_reverts_and_panics() -> None:
    text = decode_revert(bytes.fromhex("08c379a0") + encode(["string"], ["no way"]))
    assert text is not None and text.message == "the contract refused: no way"
    panic = decode_revert(bytes.fromhex("4e487b71") + encode(["uint256"], [17]))
    assert panic is not None and "panic 0x11" in panic.message
