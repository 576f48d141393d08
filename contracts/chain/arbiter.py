"""An OperatorArbiter on chain: what it was asked, and what its operator has said."""

from typing import Any, NamedTuple, cast

from eth_utils.address import to_checksum_address
from web3.contract import Contract
from web3.exceptions import BadFunctionCallOutput, ContractLogicError
from web3.types import FilterParams

from contracts.chain import artifacts
from contracts.chain.client import Chain
from contracts.commitment import next_tip
from contracts.program.progress_bar import Watch, nobody
from contracts.types import from_hex, to_hex

TIP_BYTES = 20


class Question(NamedTuple):
    """One stretch: from the state that the tip `before` commits to, does the job give the root `claimed`?"""

    id: str
    lease: str
    job: str  # hash of the JobSpec
    rules: str
    provider: str
    challenger: str
    k: int  # the checkpoint, from 1
    before: str
    claimed: str
    ground: int

    @property
    def tip(self) -> str:
        """Where the claimed root leads to."""
        return to_hex(next_tip(from_hex(self.before), from_hex(self.claimed)))


class OperatorArbiter:
    def __init__(self, chain: Chain, address: str) -> None:
        self.chain, self.address = chain, to_checksum_address(address)
        self._contract: Contract = chain.w3.eth.contract(
            address=self.address, abi=artifacts.load_artifact("OperatorArbiter").abi
        )

    def operator(self) -> str | None:
        """Who decides; None if the contract is no OperatorArbiter."""
        return self._address_of("operator")

    def escrow(self) -> str | None:
        """The one whose questions it takes; None as above."""
        return self._address_of("escrow")

    def _address_of(self, name: str) -> str | None:
        try:
            return to_checksum_address(self._contract.functions[name]().call())
        except (BadFunctionCallOutput, ContractLogicError):
            return None

    def verdict(self, question: str) -> int:
        """0: none yet."""
        return int(self._contract.functions.verdict(from_hex(question)).call())

    def questions(self, first_block: int, last_block: int, watch: Watch = nobody) -> list[Question]:
        """All that were asked in these blocks, both included, in the chain's order."""
        event: Any = self._contract.events.Opened()
        which = {"address": self.address, "topics": [event.topic]}
        logs = self.chain.logs.logs(cast(FilterParams, which), first_block, last_block, watch)
        return [_question(event.process_log(log)["args"]["question"]) for log in logs]


def _question(said: Any) -> Question:
    return Question(
        id=to_hex(said["id"]),
        lease=to_hex(said["lease"]),
        job=to_hex(said["job"]),
        rules=to_hex(said["rules"]),
        provider=to_checksum_address(said["provider"]),
        challenger=to_checksum_address(said["challenger"]),
        k=said["k"],
        before=to_hex(said["before"][:TIP_BYTES]),
        claimed=to_hex(said["claimed"]),
        ground=said["ground"],
    )
