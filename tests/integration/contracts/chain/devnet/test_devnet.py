"""Devnets: one a home, going on from what they kept, with a clock of their own."""

import time
from typing import Any

import pytest

from contracts.chain.client import connect
from contracts.chain.devnet.devnet import Devnet, start_devnet
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.orders import new_account

NOBODY = "0x000000000000000000000000000000000000dEaD"


def test_one_devnet_a_home(devnet: Devnet) -> None:
    with pytest.raises(UserError, match=f"running for .* already: process {devnet.process.pid}"):
        start_devnet(devnet.home)


def test_a_port_in_use(devnet: Devnet, tmp_path: Any) -> None:
    port = int(devnet.settings.rpc_url.rsplit(":", 1)[1])
    with pytest.raises(UserError, match=f"port {port} is not free"):
        start_devnet(tmp_path, port)


def test_a_config_that_is_not_a_devnets_is_kept(tmp_path: Any) -> None:
    (tmp_path / "config.toml").write_text("chain_id = 1\n")
    with pytest.raises(UserError, match="was not written by a devnet"):
        start_devnet(tmp_path)
    assert (tmp_path / "config.toml").read_text() == "chain_id = 1\n"


def test_a_devnet_goes_on_from_its_state_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    alice, state = new_account(), tmp_path / "state.json"
    with start_devnet(tmp_path, state=state) as first:
        chain = connect(first.settings)
        Sender(chain, first.operator).send(chain.faucet(alice.address, 5))
    with start_devnet(tmp_path, state=state) as second:
        assert second.reused and second.deployment.escrow == first.deployment.escrow
        assert connect(second.settings).token_balance(alice.address) == 5


def test_a_clock_that_goes_on_without_transactions(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    with start_devnet(tmp_path, block_time=0.2) as devnet:
        chain = connect(devnet.settings)
        Sender(chain, devnet.operator).send(chain.faucet(NOBODY, 1))
        before, deadline = chain.now(), time.monotonic() + 300
        while chain.now() == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert chain.now() > before


def test_a_devnet_is_asked_directly(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is for others: this node is the machine's own."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with start_devnet(tmp_path) as devnet, pytest.raises(UserError, match=r"the proxy .* \(\$HTTP_PROXY\)"):
        connect(devnet.settings)  # whose node a user's is, nobody can know
