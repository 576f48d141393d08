"""A chain that can die: anvil, restarted from a copy of its state that may be some blocks old."""

import gzip
from pathlib import Path

from web3 import HTTPProvider, Web3
from web3.types import RPCEndpoint

from contracts.chain.devnet.devnet import Devnet, DevnetTiming, start_devnet


class FrailChain:
    def __init__(self, home: Path, timing: DevnetTiming) -> None:
        self.home, self._timing = home, timing
        self._state = home / "state.json"
        self.devnet: Devnet = start_devnet(home, block_time=1, timing=self._timing)
        self.port = int(self.devnet.settings.rpc_url.rpartition(":")[2])
        self.w3 = Web3(HTTPProvider(self.devnet.settings.rpc_url, request_kwargs={"timeout": 10}))

    def save(self) -> int:
        """Copies the state to disk; returns the number of its newest block."""
        number = self.w3.eth.block_number
        dump = self.w3.provider.make_request(RPCEndpoint("anvil_dumpState"), [])["result"]
        scratch = self._state.with_suffix(".part")
        scratch.write_bytes(gzip.decompress(bytes.fromhex(dump[2:])))
        scratch.replace(self._state)
        return number

    def kill(self) -> None:
        self.devnet.process.kill()
        self.devnet.process.wait()

    def restart(self) -> None:
        """With the blocks of the last copy; what came after it never happened."""
        self.devnet = start_devnet(self.home, self.port, block_time=1, timing=self._timing, state=self._state)

    def jump(self, seconds: int) -> None:
        """The chain's clock goes forward."""
        self.w3.provider.make_request(RPCEndpoint("evm_increaseTime"), [hex(seconds)])
        self.w3.provider.make_request(RPCEndpoint("evm_mine"), [])

    def stop(self) -> None:
        self.devnet.stop()
