"""A devnet's second escrow, over a token whose allowances must go to 0 before they change, as USDT's."""

import json
import subprocess
from functools import cache
from typing import Any

from contracts.chain import artifacts
from contracts.chain.client import Bounds, Chain, connect
from contracts.chain.devnet import devnet
from contracts.settings import Settings
from tests.support import ROOT

SOURCE = "contracts/test/utils/ResetFirstToken.sol"


@cache
def compiled() -> tuple[Any, str]:
    """Its ABI and bytecode, by the project's compiler."""
    settings = {"evmVersion": "cancun", "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object"]}}}
    sources = {SOURCE: {"content": (ROOT / SOURCE).read_text(encoding="utf-8")}}
    question = {"language": "Solidity", "sources": sources, "settings": settings}
    done = subprocess.run(
        [str(ROOT / "scripts" / "solc"), "--standard-json"],
        input=json.dumps(question), capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    found = answer["contracts"][SOURCE]["ResetFirstToken"]
    return found["abi"], "0x" + found["evm"]["bytecode"]["object"]


def escrow_over_it(chain: Chain) -> Chain:
    """The same chain, by the settings of an escrow that holds such a token."""
    token = _create(chain, *compiled())
    escrow = artifacts.load_artifact("Escrow")
    bounds: Bounds = chain.bounds()
    address = _create(chain, escrow.abi, escrow.bytecode, token, tuple(bounds))
    settings: Settings = chain.settings.model_copy(update={"token": token, "escrow": address})
    return connect(settings)


def _create(chain: Chain, abi: Any, bytecode: str, *arguments: Any) -> str:
    deployer = devnet.accounts()[-1]
    nonce = chain.w3.eth.get_transaction_count(deployer.address, "pending")
    built = (
        chain.w3.eth.contract(abi=abi, bytecode=bytecode)
        .constructor(*arguments)
        .build_transaction({"from": deployer.address, "nonce": nonce})
    )
    sent = chain.w3.eth.send_raw_transaction(deployer.sign_transaction(built).raw_transaction)  # type: ignore[arg-type]
    address = chain.w3.eth.wait_for_transaction_receipt(sent, poll_latency=0.02)["contractAddress"]
    assert address is not None
    return str(address)
