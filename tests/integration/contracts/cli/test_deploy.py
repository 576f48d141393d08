"""`gpumarket deploy` on a real chain: what comes out, what is refused, and a run that was cut off."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from typer.testing import CliRunner
from web3.eth import Eth

from contracts.chain.asking.node import NodeProvider
from contracts.chain.client import Bounds, Chain, connect
from contracts.chain.deploying.deployer import Deployer
from contracts.chain.deploying.record import Wish, read_record
from contracts.cli.main import app
from contracts.errors import UserError
from contracts.settings import CONFIG_NAME, load_settings, write_config
from contracts.types import to_hex
from contracts.wallet import keys
from tests.support.devnet import give_gas_money, rpc

SPANS = ["--checkpoint-timeout", "1:604800", "--window", "1:86400", "--arbiter-timeout", "1:604800"]


class Deploys:
    def __init__(self, chain: Chain, home: Path) -> None:
        self.chain, self.home = chain, home
        self.address = keys.create("op", scrypt_n=2)
        give_gas_money(chain, self.address)
        self.usual = ["--chain-id", str(chain.settings.chain_id), "--key", "op", "--yes"]

    def run(self, *arguments: str, token: str | None = None) -> Any:
        named = ["--token", token or str(self.chain.settings.token)]
        result = CliRunner().invoke(app, ["deploy", *self.usual, *named, *arguments, "-o", "json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def refused(self, *arguments: str) -> str:
        result = CliRunner().invoke(app, ["deploy", *self.usual, *arguments])
        assert result.exit_code == 1, result.output
        return " ".join(result.stderr.split())

    def sent(self) -> int:
        return int(self.chain.w3.eth.get_transaction_count(self.chain.w3.to_checksum_address(self.address)))


@pytest.fixture
def deploys(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deploys:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    monkeypatch.setenv("GPUMARKET_PASSWORD", "correct horse")
    write_config(tmp_path / CONFIG_NAME, chain.settings, "a test's")
    return Deploys(chain, tmp_path)


def test_what_a_dry_run_tells_is_what_comes(deploys: Deploys, chain: Chain) -> None:
    told = deploys.run(*SPANS, "--dry-run")
    assert told["dry_run"] and not any(one["there"] for one in told["contracts"]) and deploys.sent() == 0
    assert told["gas"] == sum(one["gas"] for one in told["contracts"]) > 4_000_000
    assert 0 < int(told["cost_wei"]) < int(told["max_cost_wei"])
    assert [one["contract"] for one in told["contracts"]] == ["Escrow", "EpochLog", "OperatorArbiter"]

    done = deploys.run(*SPANS)
    assert [one["address"] for one in done["contracts"]] == [one["address"] for one in told["contracts"]]
    assert deploys.sent() == 3
    (deploys.home / CONFIG_NAME).write_text(Path(done["settings"]).read_text())
    settings = load_settings()
    deployed = connect(settings)
    assert deployed.bounds() == Bounds(1, 604800, 1, 86400, 1, 604800) and settings.token == chain.settings.token
    assert settings.deploy_block == done["contracts"][0]["block"]
    assert deployed.newest_epoch(deploys.address) == 0
    for rules in settings.rules.values():
        assert rules.arbiter == settings.arbiter and 1 <= rules.window <= 86400
    operator = deployed._contract("OperatorArbiter", str(settings.arbiter)).functions.operator().call()
    assert operator == deploys.address

    again = deploys.run(*SPANS)
    assert again["gas"] == 0 and all(one["there"] for one in again["contracts"]) and deploys.sent() == 3
    assert again["settings"] == done["settings"]


def test_a_devnet_may_have_a_token_of_its_own(deploys: Deploys, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["deploy", *deploys.usual, "--dev-token", "--name", "play", "-o", "json"])
    assert result.exit_code == 0, result.output
    done = json.loads(result.stdout)
    (deploys.home / CONFIG_NAME).write_text(Path(done["settings"]).read_text())
    assert connect(load_settings()).symbol == done["token_symbol"] and done["token_decimals"] == 6

    def told(provider: Any, method: Any, parameters: Any) -> Any:
        if method != "web3_clientVersion":
            return ask(provider, method, parameters)
        return {"jsonrpc": "2.0", "id": 1, "result": "Geth/v1.16"}

    ask = NodeProvider.make_request
    monkeypatch.setattr(NodeProvider, "make_request", told)
    assert "the node is Geth/v1.16, not a devnet's anvil" in deploys.refused("--dev-token", "--name", "other")


def test_what_is_no_deployment_is_refused(deploys: Deploys, chain: Chain) -> None:
    token, nowhere = str(chain.settings.token), "0x" + "77" * 20
    assert f"there is no contract at {nowhere}" in deploys.refused("--token", nowhere)
    assert "is no ERC-20 token: it has no totalSupply" in deploys.refused("--token", str(chain.settings.epoch_log))
    assert "'0x12' is not an address" in deploys.refused("--token", "0x12")
    assert "an escrow holds one token" in deploys.refused()
    assert "an escrow holds one token" in deploys.refused("--token", token, "--dev-token")
    assert "chain id 31337, expected 8453" in deploys.refused("--token", token, "--chain-id", "8453")
    assert "'60' is no span of seconds" in deploys.refused("--token", token, "--window", "60")
    assert "'9:3' is no span of seconds" in deploys.refused("--token", token, "--window", "9:3")
    assert "can't be a file's name" in deploys.refused("--token", token, "--name", "../x")
    assert f"there is no contract at {nowhere}" in deploys.refused("--token", token, "--arbiter", nowhere)
    other = f"the arbiter {chain.settings.arbiter} answers to the escrow {chain.settings.escrow} only"
    assert other in deploys.refused("--token", token, "--arbiter", str(chain.settings.arbiter))
    assert "is no arbiter: it has no verdict" in deploys.refused("--token", token, "--arbiter", token)
    rpc(chain, "anvil_setBalance", deploys.address, hex(10**12))
    assert "short of the" in deploys.refused("--token", token)
    assert deploys.sent() == 0 and not (deploys.home / "deployments" / "chain-31337.json").exists()


def test_other_options_are_another_deployment(deploys: Deploys, chain: Chain) -> None:
    deploys.run(*SPANS)
    told = deploys.refused("--token", str(chain.settings.token), "--window", "5:6")
    assert "is of another deployment: bounds [" in told and "another --name" in told and deploys.sent() == 3
    deploys.run("--name", "second")
    assert deploys.sent() == 6


@pytest.mark.parametrize(
    ("cut", "at"),
    [("before it is sent", 1), ("before it is sent", 3), ("after it is sent", 2), ("after it is mined", 1)],
)
def test_a_run_that_was_cut_off_is_gone_on_with(
    deploys: Deploys, monkeypatch: pytest.MonkeyPatch, cut: str, at: int
) -> None:
    name = {"before it is sent": "send_raw_transaction", "after it is sent": "_wait", "after it is mined": "_block_of"}
    owner: Any = Eth if cut == "before it is sent" else Deployer
    inner: Callable[..., Any] = getattr(owner, name[cut])
    calls = 0

    def dies(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return inner(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name[cut], dies)
        result = CliRunner().invoke(
            app, ["deploy", *deploys.usual, "--token", str(deploys.chain.settings.token), *SPANS]
        )
        assert result.exit_code == 130, result.output
    done = deploys.run(*SPANS)
    assert deploys.sent() == 3
    assert [one["nonce"] for one in done["contracts"]] == [0, 1, 2] and all(one["block"] for one in done["contracts"])


def test_what_is_not_mined_is_offered_more_and_made_once(deploys: Deploys, chain: Chain) -> None:
    account = keys.load("op")
    wish = Wish(
        chain_id=31337, deployer=deploys.address, token=chain.settings.token, arbiter=None,
        operator=deploys.address, bounds=Bounds(1, 10, 1, 10, 1, 10),
    )  # fmt: skip
    path = deploys.home / "slow.json"

    def carry_out(timeout: float, key: LocalAccount = account) -> None:
        Deployer(chain.w3, wish, path, 500 * 10**9, timeout=timeout).carry_out(key, lambda _: None)

    rpc(chain, "evm_setAutomine", False)
    try:
        for _ in range(2):
            with pytest.raises(UserError, match=r"was not mined within 0\.3 s"):
                carry_out(0.3)
        record = read_record(path)
        assert record is not None
        assert len(record.contracts["escrow"].transactions) == 2
    finally:
        rpc(chain, "evm_setAutomine", True)
        rpc(chain, "evm_mine")
    carry_out(300)
    assert deploys.sent() == 3


def test_another_transaction_of_the_key_moves_what_is_not_there_yet(deploys: Deploys, chain: Chain) -> None:
    told = deploys.run(*SPANS, "--dry-run")
    account = keys.load("op")
    other: Any = {
        "to": account.address, "value": 0, "gas": 21_000, "nonce": 0, "chainId": 31337, "type": 2,
        "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 1,
    }  # fmt: skip
    chain.w3.eth.send_raw_transaction(account.sign_transaction(other).raw_transaction)
    done = deploys.run(*SPANS)
    assert [one["nonce"] for one in done["contracts"]] == [1, 2, 3]
    assert done["contracts"][0]["address"] == told["contracts"][1]["address"]


def test_code_that_is_another_is_told(deploys: Deploys, chain: Chain) -> None:
    done = deploys.run(*SPANS)
    for one in done["contracts"]:
        code = bytearray(chain.w3.eth.get_code(one["address"]))
        for at in (0, len(code) // 2, len(code) - 1):
            code[at] ^= 1
            rpc(chain, "anvil_setCode", one["address"], to_hex(bytes(code)))
            told = deploys.refused("--token", str(chain.settings.token), *SPANS)
            assert f"the code at {one['address']} is not the {one['contract']}" in told
            code[at] ^= 1
        rpc(chain, "anvil_setCode", one["address"], to_hex(bytes(code)))
    deploys.run(*SPANS)


def test_a_record_that_is_spoiled_is_told(deploys: Deploys, chain: Chain) -> None:
    file = deploys.home / "deployments" / "chain-31337.json"
    file.parent.mkdir()
    for text in ("", "{", "[]", '{"wish": {}}', "\0"):
        file.write_text(text)
        assert "can't be read" in deploys.refused("--token", str(chain.settings.token))
    assert deploys.sent() == 0
