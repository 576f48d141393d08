"""`gpumarket wallet` against a real chain."""

import json
import time
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from contracts.chain.client import Chain
from contracts.chain.sending import lane
from contracts.chain.sending.sender import NotMined, Sender
from contracts.cli.main import app
from contracts.errors import UserError
from contracts.settings import write_config
from contracts.wallet import keys
from tests.support.devnet import TOKEN, rpc


class Wallet:
    def __init__(self) -> None:
        self.runner = CliRunner()

    def run(self, *arguments: str) -> str:
        result = self.runner.invoke(app, ["wallet", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json"))

    def has(self, name: str) -> None:
        """Makes a key as `wallet new` does, but cheap to open."""
        keys.create(name, scrypt_n=2)

    def fails(self, *arguments: str) -> str:
        result = self.runner.invoke(app, ["wallet", *arguments])
        assert result.exit_code == 1, result.output
        assert not isinstance(result.exception, UserError)
        return result.stderr


@pytest.fixture
def wallet(chain: Chain, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Wallet:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("GPUMARKET_HOME", str(home))
    monkeypatch.setenv("GPUMARKET_PASSWORD", "correct horse")
    write_config(home / "config.toml", chain.settings, "a test's")
    return Wallet()


def balances(wallet: Wallet, name: str) -> tuple[str, str]:
    [row] = wallet.json("show", name)
    return row["held"], row["free"]


def test_from_a_new_key_to_a_deposit_and_back(wallet: Wallet, chain: Chain) -> None:
    [made] = wallet.json("new", "alice")
    assert made == {"name": "alice", "address": keys.address("alice")}
    assert wallet.json("faucet")["transactions"][0]["what"] == f"give 1000 tUSD to {made['address']}"
    assert balances(wallet, "alice") == ("1000", "0")

    done = wallet.json("deposit", "12.5")
    assert (done["amount"], len(done["transactions"])) == ("12500000", 1)
    assert balances(wallet, "alice") == ("987.5", "12.5")
    assert chain.account(made["address"]).free == 12_500_000

    assert "done in block" in wallet.run("withdraw", "0.000001", "--key", "alice")
    assert balances(wallet, "alice") == ("987.500001", "12.499999")
    elsewhere = "0x000000000000000000000000000000000000dEaD"
    wallet.run("withdraw", "2", "--to", elsewhere)
    assert chain.token_balance(elsewhere) == 2 * TOKEN
    shown = [line.split() for line in wallet.run("show").splitlines()]
    assert [line for line in shown if line[0] in ("held", "free", "token")] == [
        ["held", "987.500001"],
        ["free", "10.499999"],
        ["token", "tUSD"],
    ]


def test_a_dry_run_sends_nothing(wallet: Wallet, chain: Chain) -> None:
    wallet.has("alice")
    wallet.run("faucet")
    block = chain.w3.eth.block_number
    shown = wallet.json("deposit", "5", "--dry-run")
    assert shown["dry_run"] and int(shown["transactions"][0]["max_cost_wei"]) > 0
    assert "nothing was sent" in wallet.run("deposit", "5", "--dry-run")
    assert "would give 3 tUSD" in wallet.run("faucet", "3", "--dry-run")
    assert chain.w3.eth.block_number == block


def test_what_is_missing(wallet: Wallet, chain: Chain) -> None:
    assert "there is no key" in wallet.fails("deposit", "1")
    wallet.has("alice")
    wallet.has("bob")
    assert "which key?" in wallet.fails("deposit", "1")
    assert "there is no key named 'carol'" in wallet.fails("deposit", "1", "--key", "carol")
    wallet.run("faucet", "10", "--key", "alice")
    assert "alice holds 10 tUSD, 2.5 tUSD short of 12.5 tUSD" in wallet.fails("deposit", "12.5", "--key", "alice")
    assert "0 tUSD free in the escrow, 1 tUSD short of 1 tUSD" in wallet.fails("withdraw", "1", "--key", "alice")
    assert "7 digits after the point" in wallet.fails("deposit", "0.0000001", "--key", "alice")
    assert "'1e3' is not an amount" in wallet.fails("deposit", "1e3", "--key", "alice")
    rpc(chain, "anvil_setBalance", keys.address("alice"), "0x1")
    assert "short of the" in wallet.fails("deposit", "1", "--key", "alice")


def test_a_killed_command_given_again_goes_on(wallet: Wallet, chain: Chain) -> None:
    """Killed when its transaction was mined, before it could say so."""
    wallet.has("alice")
    wallet.run("faucet", "10")
    alice = Sender(chain, keys.load("alice"))
    alice.send(chain.deposit_with_permit(alice.account, 7 * TOKEN, 2**40), key=f"wallet deposit {7 * TOKEN}")
    assert "an interrupted command had sent it" in wallet.run("deposit", "7")
    assert balances(wallet, "alice") == ("3", "7")
    assert "4 tUSD short of 7 tUSD" in wallet.fails("deposit", "7")
    alice.send(chain.withdraw(alice.address, 5 * TOKEN), key=f"wallet withdraw {5 * TOKEN} {alice.address}")
    assert wallet.json("withdraw", "5")["transactions"][0]["resumed"]
    assert balances(wallet, "alice") == ("8", "2")
    assert not wallet.json("deposit", "7")["transactions"][0]["resumed"]
    # One that was killed before it sent anything: a dry run does not send it, the command itself does.
    stopped = Sender(chain, keys.load("alice"), allowed=lambda: False, timeout=0.1)
    with pytest.raises(NotMined):
        stopped.send(chain.withdraw(alice.address, TOKEN), key=f"wallet withdraw {TOKEN} {alice.address}")
    lane.close_lanes()
    assert wallet.json("withdraw", "1", "--dry-run")["dry_run"]
    time.sleep(0.5)
    assert balances(wallet, "alice") == ("1", "9")
    assert wallet.json("withdraw", "1")["transactions"][0]["resumed"]
    assert balances(wallet, "alice") == ("2", "8")


def test_a_wrong_password(wallet: Wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet.has("alice")
    wallet.run("faucet")
    monkeypatch.setenv("GPUMARKET_PASSWORD", "wrong")
    assert "wrong password for key 'alice'" in wallet.fails("deposit", "1")
    assert "there is a key named 'alice' already" in wallet.fails("new", "alice")


def test_no_faucet_where_the_node_is_not_anvil(wallet: Wallet, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet.has("alice")
    monkeypatch.setattr(type(chain.w3), "client_version", "Geth/v1.16.0")
    assert "there is no faucet here" in wallet.fails("faucet")


def test_refusals_have_no_traceback(wallet: Wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet.has("alice")
    wallet.run("faucet")
    wallet.run("deposit", "5")
    for command in ("deposit", "withdraw", "faucet"):
        assert "'0' is no amount: it must be more than 0" in wallet.fails(command, "0")
    nobody = "0x" + "00" * 20
    for options in ([], ["--dry-run"]):
        assert "error: the address must not be 0" in wallet.fails("withdraw", "1", "--to", nobody, *options)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1/v3/secret", "no Ethereum node answers at http://127.0.0.1:1: nothing accepts connections"),
        ("nonsense", "no Ethereum node answers at 'nonsense': that is not a URL"),
        ("http://me:secret@[::1", "no Ethereum node answers at the address that is set: Invalid IPv6 URL"),
        ("ftp://127.0.0.1:1", "must begin with http:// or https://"),
    ],
)
def test_no_node(wallet: Wallet, url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet.has("alice")
    monkeypatch.setenv("GPUMARKET_RPC_URL", url)
    error = wallet.fails("show")
    assert said in error
    assert "secret" not in error


def test_a_node_that_goes_away(wallet: Wallet, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    wallet.has("alice")

    def gone(*_: object) -> int:
        raise requests.ConnectionError("reset by peer")

    monkeypatch.setattr(Chain, "token_balance", gone)
    assert "error: the Ethereum node stopped answering" in wallet.fails("deposit", "1")
