"""What every play on this stage has: a chain, a market, an approver, an arbiter, and the parties' money."""

import json
import time
from pathlib import Path

from rich.console import Console
from web3.types import RPCEndpoint

from contracts.amounts import format_amount, parse_amount
from contracts.api.client import MarketClient
from contracts.audits.verification import Verification
from contracts.chain.client import Chain, connect
from contracts.chain.devnet import devnet
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.orders import Rules
from contracts.settings import CONFIG_NAME, write_config
from scripts.lib.demo.parties import Stage

ARBITER = "arbiter"  # the party's name; its money is that of the contract
AUDITED = "demo"  # name of the rule-set under which lies are looked for here
# Its seconds. Who lies and leaves must be replayed within a window, whatever else runs on this machine.
AUDITED_TIMES = {"window": 180, "checkpoint_timeout": 600, "arbiter_timeout": 240}
PLAY_MONEY = "500"  # tokens, for each party

console = Console(highlight=False)


class Scene:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.chain: Chain
        self.market: MarketClient
        self.events: list[str] = []
        self.before: dict[str, int] = {}  # each party's tokens

    def say(self, text: str) -> None:
        self.events.append(f"{time.monotonic() - self.stage.started:5.1f} s  {text}")
        console.print(self.events[-1], soft_wrap=True)

    # ------------------------------------------------------------- set the stage

    def start_chain(self, *options: str, audited: Verification) -> None:
        """A devnet, with the rule-set AUDITED beside its own."""
        party = self.stage.party("devnet")
        party.start("chain", "devnet", "--port", "0", "--block-time", "1", *options)
        config = party.home / CONFIG_NAME
        self.stage.wait_for("the chain", config.is_file, party)
        self.stage.config = config
        self.stage.config = self._with_rules(audited)
        self.chain = connect(self.stage.settings())
        self.say(f"chain {self.chain.settings.rpc_url}, escrow {self.chain.domain.verifying_contract}")

    def _with_rules(self, verification: Verification) -> Path:
        settings = self.stage.settings()
        rules: Rules = settings.rule_set("unchecked").model_copy(
            update={**AUDITED_TIMES, "verification": verification.hash()}
        )
        more = {
            "rules": {**settings.rules, AUDITED: rules},
            "verifications": {AUDITED: verification},
        }
        path = self.stage.home / CONFIG_NAME
        write_config(path, settings.model_copy(update=more), "A devnet's, and the demo's own rules.")
        return path

    def make_rich(self, *names: str) -> None:
        """Keys, play money and gas: what `gpumarket wallet new` and `wallet faucet` do."""
        purse = Sender(self.chain, devnet.accounts()[-1])
        amount = parse_amount(PLAY_MONEY, self.chain.decimals)
        for name in names:
            address = self.stage.party(name).new_key()
            purse.send(self.chain.faucet(address, amount))
            self.chain.w3.provider.make_request(RPCEndpoint("anvil_setBalance"), [address, hex(10**19)])
            self.before[name] = amount

    def deposit(self, name: str, tokens: int) -> None:
        """What `gpumarket wallet deposit` does."""
        sender = self.sender(name)
        amount = tokens * 10**self.chain.decimals
        sender.send(self.chain.approve(amount))
        sender.send(self.chain.deposit(sender.address, amount))

    def start_market(self) -> None:
        """It begins to start."""
        operator = self.stage.party("operator")
        port = self.stage.free_port()
        self.stage.market_url = f"http://127.0.0.1:{port}"
        settings = {"key": "operator", "port": port, "fee": 1000, "epoch_seconds": 1, "poll_seconds": 1}
        settings["recommended_approver"] = self.address("approver")
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
        (operator.home / "market.toml").write_text("".join(lines))
        operator.start("market", "market", "serve")
        self.market = MarketClient(self.stage.market_url, attempts=1)

    def start_approver(self, liar: str | None = None) -> None:
        self.stage.party("approver").start(
            "approver", "approver", "start", "--key", "approver", "--poll", "1", liar=liar
        )

    def start_arbiter(self) -> None:
        self.stage.party(ARBITER).start("arbiter", "arbiter", "start", "--devnet", "--poll", "1")

    def wait_for_market(self) -> None:
        self.stage.wait_for("the market", self._market_answers, self.stage.party("operator"))
        self.say(f"market {self.stage.market_url}, approver {self.address('approver')}")

    def _market_answers(self) -> bool:
        try:
            self.market.info()
        except UserError:  # not listening yet, or still reading the chain
            return False
        return True

    # ------------------------------------------------------------- the books

    def sender(self, name: str) -> Sender:
        return Sender(self.chain, self.stage.party(name).account())

    def address(self, name: str) -> str:
        return self.stage.party(name).address()

    def account_of(self, name: str) -> str:
        """Where its money is."""
        return str(self.chain.settings.require("arbiter")) if name == ARBITER else self.address(name)

    def name_of(self, address: str) -> str:
        named = (name for name in self.before if name != ARBITER and self.address(name) == address)
        return next(named, address)

    def wealth(self, name: str) -> int:
        """All tokens of a party that are not locked in a lease: in its wallet, and free in the escrow."""
        address = self.account_of(name)
        return self.chain.token_balance(address) + self.chain.account(address).free

    def tokens(self, amount: int) -> str:
        return format_amount(amount, self.chain.decimals)

    def leases_are_over(self) -> bool:
        return not any(True for _ in self.market.leases(live=True))

    def secrets_are_shown(self, job: str) -> bool:
        """Those of the draws of all leases of a job, which the approver tells when they are over."""
        kinds = [note.content.kind for note in self.market.audit_notes(job=job)]
        return kinds.count("secret") == kinds.count("commitment")

    def reconcile(self) -> tuple[bool, str]:
        """Whether the books agree, and what the command prints."""
        return self.stage.party("operator").try_run("reconcile")

    def verify_audit(self, who: str, job: str) -> tuple[bool, str]:
        """As anybody may, when the approver has shown its secrets."""
        self.stage.wait_for("the approver's secrets", lambda: self.secrets_are_shown(job))
        return self.stage.party(who).try_run("audit", "verify", job)
