"""A node that takes questions and answers none, asked because strangers want something."""

import socket

import pytest
from web3.types import RPCEndpoint

from contracts.chain.asking import node
from contracts.chain.asking.hurry import Gate, hurried
from contracts.chain.asking.node import NodeProvider, NodeRefused, NodeSilent


def test_a_silent_node_is_asked_shortly_and_then_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(0.5)
        provider = NodeProvider(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with hurried(Gate()):
            with pytest.raises(NodeRefused, match=r"took longer than 0\.3 s"):
                provider.make_request(RPCEndpoint("eth_chainId"), [])
            silent.accept()[0].close()
            for _ in range(60):
                with pytest.raises(NodeSilent, match="is not asked: it gave no answer a moment ago"):
                    provider.make_request(RPCEndpoint("eth_chainId"), [])
        with pytest.raises(TimeoutError):
            silent.accept()  # nobody else came
