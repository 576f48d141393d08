"""Deposits of tokens of every kind, by a client's command and a provider's."""

import json
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount
from typer.testing import CliRunner

from contracts.chain.client import Chain
from contracts.chain.deposits import deposit_steps
from contracts.chain.sending.sender import Sender
from contracts.cli.main import app
from contracts.settings import write_config
from contracts.wallet import keys
from tests.support.devnet import TOKEN, Funded
from tests.support.reset_first_token import escrow_over_it
from worker.onboarding.register import deposit_stake


@pytest.fixture
def alice(funded: Funded) -> LocalAccount:
    [account] = funded()
    return account


@pytest.fixture
def usdt(chain: Chain, alice: LocalAccount) -> Chain:
    other = escrow_over_it(chain)
    Sender(other, alice).send(other.faucet(alice.address, 100 * TOKEN))
    return other


def what(sender: Sender, amount: int) -> list[str]:
    return [step.what.split(" ", 1)[0] for step in deposit_steps(sender, amount)]


def test_an_allowance_that_must_go_to_0_first(usdt: Chain, alice: LocalAccount) -> None:
    sender = Sender(usdt, alice)
    assert what(sender, 10) == ["let", "deposit"]
    sender.send(usdt.approve(5))
    assert what(sender, 5) == ["deposit"]
    assert what(sender, 10) == ["take", "let", "deposit"]
    deposit_stake(sender, 10 * TOKEN)  # the provider's
    assert usdt.account(alice.address).free == 10 * TOKEN
    assert usdt.allowance(alice.address) == 0


def test_a_token_with_permits_needs_one_transaction(chain: Chain, alice: LocalAccount) -> None:
    sender = Sender(chain, alice)
    sender.send(chain.approve(5))
    assert what(sender, 10) == ["deposit"]
    before = chain.w3.eth.get_transaction_count(chain.w3.to_checksum_address(alice.address))
    deposit_stake(sender, 10)
    assert chain.account(alice.address).free == 10
    assert chain.w3.eth.get_transaction_count(chain.w3.to_checksum_address(alice.address)) == before + 1


def test_the_wallets_command(usdt: Chain, alice: LocalAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    monkeypatch.setenv("GPUMARKET_PASSWORD", "open sesame")
    write_config(tmp_path / "config.toml", usdt.settings, "For a test.")
    keys.save("alice", alice, "open sesame", scrypt_n=2)
    Sender(usdt, alice).send(usdt.approve(5))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["wallet", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    would = run("deposit", "10", "--dry-run").splitlines()
    assert [line.split(";")[0] for line in would] == [
        "would take back what is left of an allowance, 0.000005 USDX",
        "would let the escrow take 10 USDX",
        f"would deposit 10 USDX for {alice.address}",
        "nothing was sent",
    ]
    assert "at most" in would[0] and would[1].endswith("gas: known when the one before it is mined")
    rows = json.loads(run("deposit", "10", "--dry-run", "-o", "json"))["transactions"]
    assert [row["max_cost_wei"] is None for row in rows] == [False, True, True]
    assert usdt.allowance(alice.address) == 5
    assert len(json.loads(run("deposit", "10", "-o", "json"))["transactions"]) == 3
    assert usdt.account(alice.address).free == 10 * TOKEN
    run("withdraw", "10")
    assert usdt.token_balance(alice.address) == 100 * TOKEN
