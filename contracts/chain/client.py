"""The contracts on one chain: typed reads, and calls to hand to a `Sender`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_typing import BlockNumber
from web3 import Web3
from web3.contract import Contract
from web3.contract.contract import ContractFunction
from web3.exceptions import BadFunctionCallOutput, BlockNotFound, ContractLogicError, Web3RPCError
from web3.types import BlockIdentifier, TxParams, TxReceipt, Wei

from contracts.amounts import format_amount
from contracts.chain import artifacts, errors, events
from contracts.chain.asking.log_reader import LogReader
from contracts.chain.asking.node import NodeProvider, NodeTrouble, Question, ask, sure
from contracts.chain.calls import Redemption, SignedMatch, order_abi, rules_abi
from contracts.errors import UserError
from contracts.orders import Approval, Domain, Rules
from contracts.proxies import plain_address
from contracts.settings import Settings
from contracts.terms import AccountWord, Phase, StateWord, Terms
from contracts.types import ZERO_HASH, from_hex, to_hex


class Bounds(NamedTuple):
    """Limits on rules, in seconds, fixed when an escrow is deployed. Inclusive."""

    min_checkpoint_timeout: int
    max_checkpoint_timeout: int
    min_window: int
    max_window: int
    min_arbiter_timeout: int
    max_arbiter_timeout: int


class OpenDispute(NamedTuple):
    """A challenge that is not resolved."""

    id: str
    challenger: str
    bond: int
    claimed_tip: str


def open_node(settings: Settings) -> Web3:
    """Checks that the node has the right chain. Raises UserError."""
    url = plain_address(settings.rpc_url)
    expected = settings.require("chain_id")
    try:
        w3 = Web3(NodeProvider(settings.rpc_url))
        found = w3.eth.chain_id
    except NodeTrouble as error:
        raise UserError(error.message, error.hint) from error
    except (ValueError, *errors.NODE_AWAY) as error:
        raise UserError(
            f"no Ethereum node answers at {url}: {(str(error).splitlines() or [type(error).__name__])[0][:200]}",
            "set GPUMARKET_RPC_URL to the address of one",
        ) from error
    if found != expected:
        raise UserError(
            f"the node at {url} has chain id {found}, expected {expected}",
            "set GPUMARKET_RPC_URL to a node of that chain, or chain id and addresses to those of this one",
        )
    return w3


def connect(settings: Settings) -> "Chain":
    """Checks that the node has the right chain, and contracts where the settings say. Raises UserError."""
    w3 = open_node(settings)
    for name in ("escrow", "token"):
        address = settings.require(name)
        if not w3.eth.get_code(address):
            raise UserError(
                f"there is no contract at {address} ({name}) on chain {settings.chain_id} at "
                f"{plain_address(settings.rpc_url)}",
                "a devnet that was started anew has nothing of the old one: start it with --state FILE to keep it; "
                "elsewhere compare the address with the deployment's",
            )
    chain = Chain(w3, settings)
    try:
        held = chain.escrow.functions.token().call()
        _, name, version, *_ = chain.escrow.functions.eip712Domain().call()
    except (BadFunctionCallOutput, ContractLogicError) as error:
        raise UserError(f"the contract at {settings.escrow} is not a gpumarket escrow") from error
    ours = chain.domain.as_dict()
    if (name, version) != (ours["name"], ours["version"]):
        raise UserError(
            f"the escrow {settings.escrow} is of version {version[:40]!r} of {name[:40]!r}, this program signs for "
            f"version {ours['version']!r} of {ours['name']!r}",
            f"set GPUMARKET_ESCROW to one of version {ours['version']}; for leases that live on that one, use the "
            "gpumarket that was made for it",
        )
    if held != settings.token:
        raise UserError(
            f"the escrow {settings.escrow} holds the token {held}, but the settings say {settings.token}",
            "set GPUMARKET_TOKEN to the escrow's",
        )
    return chain


class Chain:
    """One escrow with what surrounds it. Amounts are in the token's smallest unit, times in UTC seconds."""

    def __init__(self, w3: Web3, settings: Settings) -> None:
        self.w3 = w3
        self.settings = settings
        self.escrow = self._contract("Escrow", settings.require("escrow"))
        self.token = self._contract("DevToken", settings.require("token"))
        self.domain = Domain(chain_id=settings.require("chain_id"), verifying_contract=settings.require("escrow"))
        self.logs = LogReader(w3)
        self._token_facts: tuple[int, str] | None = None

    def _contract(self, name: str, address: str) -> Contract:
        contract: Contract = self.w3.eth.contract(
            address=Web3.to_checksum_address(address), abi=artifacts.load_artifact(name).abi
        )
        return contract

    # ---------------------------------------------------------------- reads

    def account(self, address: str) -> AccountWord:
        return AccountWord(*self.escrow.functions.account(address).call())

    def accounts(self, addresses: Sequence[str], block: BlockIdentifier = "latest") -> list[AccountWord]:
        """Many accounts as of the end of one block."""
        at = hex(block) if isinstance(block, int) else block
        calls: list[Question] = []
        for address in addresses:
            data = self.escrow.encode_abi("account", args=[address])
            calls.append(("eth_call", [{"to": self.escrow.address, "data": data}, at]))
        kinds = ["uint256"] * len(AccountWord._fields)
        words = sure(ask(self.w3, calls))
        try:
            return [AccountWord(*abi_decode(kinds, from_hex(word))) for word in words]
        except DecodingError as error:  # as web3 tells of single calls
            raise BadFunctionCallOutput(f"there is no account of the escrow in {str(words)[:200]}") from error

    def state(self, lease: str, block: BlockIdentifier = "latest") -> StateWord:
        """The stored state, as it is before the next call's sync. All zero: no such lease, or it is over."""
        status, settled, accepted, claimed, t, tip = self.escrow.functions.state(from_hex(lease)).call(
            block_identifier=block
        )
        return StateWord(status, settled, accepted, claimed, t, int.from_bytes(tip, "big"))

    def dispute(self, lease: str) -> OpenDispute | None:
        id_, challenger, bond, tip = self.escrow.functions.dispute(from_hex(lease)).call()
        dispute = OpenDispute(to_hex(id_), challenger, bond, to_hex(tip))
        return None if dispute.id == ZERO_HASH else dispute

    def intent(self, what: str, lease: str, state: StateWord) -> str:
        """A key for `Sender.send` of a call that changes a lease, which was found in `state`: until the change is seen,
        the same call is the same intent. Two disputes of one second begin with the same state, and are told apart.
        """
        dispute = self.dispute(lease) if state.phase is Phase.CHALLENGED else None
        return f"{what} {lease} {tuple(state)}" + (f" {dispute.id}" if dispute else "")

    def bounds(self) -> Bounds:
        return Bounds(*self.escrow.functions.bounds().call())

    def token_balance(self, address: str) -> int:
        return int(self.token.functions.balanceOf(address).call())

    def allowance(self, owner: str) -> int:
        """How much the escrow may take of the owner's tokens."""
        return int(self.token.functions.allowance(owner, self.escrow.address).call())

    def block_hash(self, number: int) -> str | None:
        """None: there is no such block yet."""
        try:
            return to_hex(self.w3.eth.get_block(BlockNumber(number))["hash"])
        except BlockNotFound:
            return None

    def now(self) -> int:
        """The newest block's time."""
        return int(self.w3.eth.get_block("latest")["timestamp"])

    @property
    def decimals(self) -> int:
        return self._token_info()[0]

    @property
    def symbol(self) -> str:
        return self._token_info()[1]

    def format_amount(self, amount: int) -> str:
        """In whole tokens, with the token's symbol: "12.5 USDC"."""
        return f"{format_amount(amount, self.decimals)} {self.symbol}"

    def _token_info(self) -> tuple[int, str]:
        if self._token_facts is None:
            self._token_facts = (self.token.functions.decimals().call(), self.token.functions.symbol().call())
        return self._token_facts

    def dry_run(self, call: ContractFunction, sender: str, value: int = 0, block: BlockIdentifier = "latest") -> Any:
        """What the call would return if `sender` made it after `block`. Raises EscrowError if it would be refused."""
        transaction: TxParams = {"from": Web3.to_checksum_address(sender), "value": Wei(value)}
        try:
            return call.call(transaction, block_identifier=block)
        except (ContractLogicError, Web3RPCError) as error:
            decoded = errors.from_exception(error)
            if decoded is None:
                raise
            raise decoded from error

    def events(self, receipt: TxReceipt) -> list[events.Event]:
        """The events in a receipt's logs."""
        timestamp = int(self.w3.eth.get_block(receipt["blockHash"])["timestamp"])
        decoded = (events.decode(log, timestamp) for log in receipt["logs"])
        return [event for event in decoded if event is not None]

    # ---------------------------------------------------------------- token

    def approve(self, amount: int) -> ContractFunction:
        """Lets the escrow take `amount` of the sender's tokens."""
        return self.token.functions.approve(self.escrow.address, amount)

    def transfer(self, to: str, amount: int) -> ContractFunction:
        """Moves tokens of the sender that are not in the escrow."""
        return self.token.functions.transfer(to, amount)

    def faucet(self, to: str, amount: int) -> ContractFunction:
        """Makes tokens for anyone; devnets only."""
        return self.token.functions.faucet(to, amount)

    # ---------------------------------------------------------------- balances

    def deposit(self, account: str, amount: int) -> ContractFunction:
        return self.escrow.functions.deposit(account, amount)

    def deposit_with_permit(self, owner: LocalAccount, amount: int, deadline: int) -> ContractFunction:
        """A deposit that `owner` must send; instead of an approval it has a permit, for tokens with EIP-2612."""
        signed = owner.sign_message(encode_typed_data(full_message=self._permit(owner.address, amount, deadline)))
        return self.escrow.functions.depositWithPermit(
            owner.address, amount, deadline, signed.v, signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big")
        )

    def _permit(self, owner: str, amount: int, deadline: int) -> dict[str, Any]:
        _, name, version, chain_id, contract, _, _ = self.token.functions.eip712Domain().call()
        fields = ("owner:address", "spender:address", "value:uint256", "nonce:uint256", "deadline:uint256")
        domain = ("name:string", "version:string", "chainId:uint256", "verifyingContract:address")
        types = {"EIP712Domain": domain, "Permit": fields}
        return {
            "types": {
                kind: [dict(zip(("name", "type"), field.split(":"), strict=True)) for field in fields]
                for kind, fields in types.items()
            },
            "primaryType": "Permit",
            "domain": {"name": name, "version": version, "chainId": chain_id, "verifyingContract": contract},
            "message": {
                "owner": owner,
                "spender": self.escrow.address,
                "value": amount,
                "nonce": self.token.functions.nonces(owner).call(),
                "deadline": deadline,
            },
        }

    def withdraw(self, to: str, amount: int) -> ContractFunction:
        return self.escrow.functions.withdraw(to, amount)

    def raise_page(self, page: int) -> ContractFunction:
        return self.escrow.functions.raisePage(page)

    # ---------------------------------------------------------------- leases

    def open(self, rules: Rules, match: SignedMatch) -> ContractFunction:
        return self.escrow.functions.open(order_abi(rules), match.abi())

    def open_batch(self, rules: Sequence[Rules], matches: Sequence[SignedMatch]) -> ContractFunction:
        """A dry run returns one Refusal (as an integer) for each match."""
        return self.escrow.functions.openBatch(rules_abi(rules), [match.abi() for match in matches])

    def claim(self, terms: Terms, n: int, tip: str, roots: Sequence[str]) -> ContractFunction:
        """Claims the next checkpoints. `roots` must lead to index `n` and `tip`: else it is refused, because someone
        has redeemed or claimed meanwhile. At most MAX_PENDING may be pending."""
        return self.escrow.functions.claim(*_short(terms), n, from_hex(tip), [from_hex(root) for root in roots])

    def claim_signed(self, terms: Terms, roots: Sequence[str], signature: str) -> ContractFunction:
        return self.escrow.functions.claimSigned(
            *_short(terms), [from_hex(root) for root in roots], from_hex(signature)
        )

    def redeem(self, terms: Terms, approval: Approval, signature: str) -> ContractFunction:
        return self.escrow.functions.redeem(Redemption(terms, approval, signature).abi())

    def collect(self, terms: Terms) -> ContractFunction:
        return self.escrow.functions.collect(terms.abi())

    def end(self, terms: Terms) -> ContractFunction:
        return self.escrow.functions.end(terms.abi())

    def close(self, terms: Terms) -> ContractFunction:
        return self.escrow.functions.close(terms.abi())

    def challenge(
        self, terms: Terms, rules: Rules, accepted_tip: str, roots: Sequence[str], k: int, ground: int = 0
    ) -> ContractFunction:
        """Disputes root k; `roots` are all that are pending. Ground 0: it is wrong, 1: its data can't be had."""
        return self.escrow.functions.challenge(
            terms.abi(), order_abi(rules), from_hex(accepted_tip), [from_hex(root) for root in roots], k, ground
        )

    def challenge_signed(
        self,
        terms: Terms,
        rules: Rules,
        accepted_tip: str,
        pending: Sequence[str],
        roots: Sequence[str],
        k: int,
        signature: str,
        ground: int = 0,
    ) -> ContractFunction:
        """Disputes root k of a Claim that the provider signed; `roots` are the Claim's since the accepted checkpoint,
        `pending` those that are pending on chain."""
        words = [[from_hex(root) for root in some] for some in (pending, roots)]
        return self.escrow.functions.challengeSigned(
            terms.abi(), order_abi(rules), from_hex(accepted_tip), *words, k, ground, from_hex(signature)
        )

    def redeem_challenged(
        self, terms: Terms, rules: Rules, approval: Approval, signature: str, pending: Sequence[str]
    ) -> ContractFunction:
        """`redeem` while the lease is Challenged. An Approval of the disputed checkpoint, or beyond, ends the dispute.
        `pending`: the roots that are pending, where the Approval is of fewer checkpoints than are claimed."""
        item = Redemption(terms, approval, signature).abi()
        return self.escrow.functions.redeemChallenged(item, order_abi(rules), [from_hex(root) for root in pending])

    def resolve(self, terms: Terms, rules: Rules) -> ContractFunction:
        return self.escrow.functions.resolve(terms.abi(), order_abi(rules))

    # ---------------------------------------------------------------- around the escrow

    def publish_epoch(self, epoch: int, root: str) -> ContractFunction:
        log = self._contract("EpochLog", self.settings.require("epoch_log"))
        return log.functions.publish(epoch, from_hex(root))

    def epoch_block(self, market: str, epoch: int, first_block: int) -> int | None:
        """The block in which a market has published an epoch, if that was `first_block` or later."""
        log = self._contract("EpochLog", self.settings.require("epoch_log"))
        kind = Web3.to_hex(Web3.keccak(text="EpochPublished(address,uint64,bytes32)"))
        topics = [kind, f"0x{market[2:].lower():0>64}", f"0x{epoch:064x}"]
        which: Any = {"address": log.address, "topics": topics}
        found = self.logs.logs(which, first_block, int(self.w3.eth.block_number))
        return int(found[-1]["blockNumber"]) if found else None

    def newest_epoch(self, market: str) -> int:
        """The newest epoch that a market has published; 0 if none."""
        log = self._contract("EpochLog", self.settings.require("epoch_log"))
        return int(log.functions.newest(market).call())

    def rule(self, arbiter: str, dispute: str, verdict: int) -> ContractFunction:
        """Decides a dispute at an OperatorArbiter; for its operator. 1: the claim is true, 2: it is false, 3: void,
        4: unreproducible."""
        return self._contract("OperatorArbiter", arbiter).functions.rule(from_hex(dispute), verdict)


def _short(terms: Terms) -> tuple[str, int, int, bytes]:
    """Terms as claims take them: the parties only by their hash."""
    return terms.provider, terms.nums.pack(), terms.nums.ask_price, from_hex(terms.parties.hash())
