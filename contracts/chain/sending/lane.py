"""One key's lane of nonces: signs and broadcasts what is planned, and watches it until no reorg can undo it.

Each process that uses the key has its own lane; they share the file of intents, and nothing else is needed between
them: a version is determined by its intent, so that whoever signs it gets the same transaction.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, cast

import structlog
from eth_account.signers.local import LocalAccount
from web3._utils.method_formatters import receipt_formatter  # web3 has no public one
from web3.datastructures import AttributeDict
from web3.exceptions import Web3RPCError
from web3.types import TxReceipt

from contracts.chain.asking.node import ask, sure
from contracts.chain.client import Chain
from contracts.chain.errors import NODE_AWAY
from contracts.chain.sending.fees import Fees, fees_now, raised
from contracts.chain.sending.intents import Draft, Intent, IntentStore
from contracts.chain.sending.signing import TransactionSigner
from contracts.settings import home
from contracts.types import to_hex

DEPTH = 12  # blocks; a reorg that goes deeper is not undone here
LONGEST_POLL = 1.0  # seconds, while something is not mined
WATCH_POLL = 5.0  # seconds, when only a reorg can bring news
WATCH_EVERY = 1.0  # seconds between two looks at what is mined
AGAIN_SECONDS = 5.0  # until a transaction is broadcast again: nodes forget
FILLERS = 16  # missing nonces filled at once
PLAIN_GAS = 21_000
# What a node says to a transaction that it has, has mined, or has a dearer version of: the next look will tell.
_HARMLESS = ("already", "known transaction", "nonce too low", "underpriced")

log = structlog.get_logger()


class Expected(NamedTuple):
    """An intent, and what gets the receipt of whichever of its versions is mined."""

    intent: Intent
    receipt: "Future[TxReceipt]"


_lanes: dict[tuple[Path, str], "Lane"] = {}
_lanes_lock = threading.Lock()


def lane_of(chain: Chain, account: LocalAccount) -> "Lane":
    """This process's lane of a key."""
    place = (lane_path(chain, account.address), str(getattr(chain.w3.provider, "endpoint_uri", "")))
    with _lanes_lock:
        if place not in _lanes:
            _lanes[place] = Lane(chain, account, place[0])
        return _lanes[place]


def lane_path(chain: Chain, address: str) -> Path:
    return home() / "intents" / f"{chain.domain.chain_id}-{address}.sqlite3"


def close_lanes() -> None:
    """Ends the watching in this process. What is unfinished stays on disk, and a later Sender goes on with it."""
    with _lanes_lock:
        closed = list(_lanes.values())
        _lanes.clear()
    for lane in closed:
        lane.close()


class Lane:
    """Threads share it. A thread of its own does the watching while there is something to watch."""

    def __init__(self, chain: Chain, account: LocalAccount, path: Path) -> None:
        self.address: str = account.address
        self.store = IntentStore(path)
        self.poll, self.bump_after = 0.05, 30.0  # seconds; a Sender sets them
        self.allowed: Callable[[], bool] = lambda: True  # whether anything may leave this process now; a Sender sets it
        self.gas_is_low = False
        self._w3, self._settings = chain.w3, chain.settings
        self._signer = TransactionSigner(account, chain.domain.chain_id)
        self._lock = threading.Lock()  # of what follows
        self._waiting: dict[int, Future[TxReceipt]] = {}
        self._given_up: set[int] = set()
        self._watcher: threading.Thread | None = None
        self._bound = self._closed = False
        self._wake = threading.Event()
        self._sent: dict[int, float] = {}  # monotonic time of the last broadcast, by intent
        self._refusals: dict[int, str] = {}  # what the node said last, by intent
        self._trouble = ""
        self._watched: tuple[str, float] = ("", 0.0)  # head and monotonic time of the last look at what is mined

    # ------------------------------------------------------------- for the Sender

    def bind(self) -> None:
        """Makes sure that the intents are of this chain. Raises as requests does."""
        if self._bound:
            return
        (genesis,) = sure(ask(self._w3, [("eth_getBlockByNumber", ["0x0", False])]))
        if lost := self.store.bind(genesis["hash"]):
            log.warning("sender.other_chain", path=str(self.store.path), dropped=lost)
        self._bound = True

    def named(self, key: str) -> Intent | None:
        """The intent that has this key. One that reverted loses it when no reorg can make it succeed any more: then a
        second one with the key has an effect where the first has none. Raises as requests does."""
        self.bind()
        known = self.store.by_key(key)
        if known is None or known.mined is None:
            return known
        receipt, head = sure(ask(self._w3, [("eth_getTransactionReceipt", [known.mined]), ("eth_blockNumber", [])]))
        if receipt is None or receipt["status"] == "0x1" or int(receipt["blockNumber"], 16) + DEPTH > int(head, 16):
            return known
        self.store.unname(known.id)
        return None

    def submit(self, drafts: Sequence[Draft], fees: Fees, count: int) -> list[Expected]:
        """Plans, signs and broadcasts. Once it is planned, trouble is no error: the watcher tries again."""
        intents = self.store.plan(drafts, fees, count)
        now = time.monotonic()
        self._sent |= {intent.id: now for intent in intents}
        expected = self._expect(intents)
        try:
            self._push([intent for intent in intents if intent.mined is None])
        except (*NODE_AWAY, sqlite3.Error) as error:
            self._note_trouble(error)
        self.start()
        return expected

    def watch(self, intents: Sequence[Intent]) -> list[Expected]:
        """Waits for what was submitted before, also by another process."""
        expected = self._expect(intents)
        self.start()
        return expected

    def _expect(self, intents: Sequence[Intent]) -> list[Expected]:
        with self._lock:
            return [Expected(intent, self._waiting.setdefault(intent.id, Future())) for intent in intents]

    def orphans(self) -> list[Intent]:
        """Not mined, and nobody in this process waits for it."""
        return [one for one in self.store.open() if one.id not in self._waiting or one.id in self._given_up]

    def give_up(self, intent: Intent) -> str:
        """Says that nobody waits for it any more. Returns what is in its way, if that is known."""
        self._given_up.add(intent.id)
        return self._refusals.get(intent.id) or self._trouble

    def start(self) -> None:
        """Has somebody watch from now on."""
        with self._lock:
            if self._watcher is None and not self._closed:
                self._watcher = threading.Thread(target=self._watch, name=f"lane {self.address[:8]}", daemon=True)
                self._watcher.start()
            self._wake.set()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            watcher = self._watcher
        self._wake.set()
        if watcher is not None:
            watcher.join()
        self.store.close()

    # ------------------------------------------------------------- the watcher

    def _watch(self) -> None:
        pause = self.poll
        while not self._closed:
            self._wake.clear()
            try:
                self.bind()
                idle, rest = self._round()
                self._trouble = ""
            except Exception as error:  # the node is away, a disk is full, or a bug: money waits, so go on
                self._note_trouble(error)
                idle, rest = False, LONGEST_POLL
            if idle and self._may_end():
                return
            if self._wake.wait(max(pause, rest)):
                pause = self.poll
            else:
                pause = min(2 * pause, LONGEST_POLL)

    def _may_end(self) -> bool:
        with self._lock:
            if self._waiting or self._wake.is_set():
                return False
            self._watcher = None
            return True

    def _round(self) -> tuple[bool, float]:
        """One look at chain and intents. Returns whether there is nothing to watch, and seconds to rest at least."""
        opened = self.store.open()
        head, count = sure(
            ask(
                self._w3,
                [("eth_getBlockByNumber", ["latest", False]), ("eth_getTransactionCount", [self.address, "latest"])],
            )
        )
        number, count = int(head["number"], 16), int(count, 16)
        receipts = self._look_for([intent for intent in opened if intent.nonce < count])
        left = [intent for intent in opened if intent.id not in receipts]
        if left:
            self._see_to(left, head, number, count)
        settling = self._look_back(head["hash"], number)
        self._tell(receipts)
        idle = not left and not settling and not self._waiting
        return idle, 0.0 if left or self._waiting else WATCH_POLL

    def _look_for(self, intents: Sequence[Intent]) -> dict[int, Any]:
        """Raw receipts of those that are mined, by intent; they are noted on disk."""
        versions = [(intent.id, version.hash) for intent in intents for version in intent.versions]
        answers = sure(ask(self._w3, [("eth_getTransactionReceipt", [hash]) for _, hash in versions]))
        found = {id: receipt for (id, _), receipt in zip(versions, answers, strict=True) if receipt is not None}
        if found:
            self.store.note_mined([_mined(id, receipt) for id, receipt in found.items()])
        for id in found:
            self._refusals.pop(id, None)
            self._sent.pop(id, None)
            self._given_up.discard(id)
        return found

    def _tell(self, receipts: dict[int, Any]) -> None:
        """Gives those who wait their receipts, also of what another process or an earlier look has found."""
        on_record = self.store.mined_among(set(self._waiting) - set(receipts))
        asked = sure(ask(self._w3, [("eth_getTransactionReceipt", [intent.mined]) for intent in on_record]))
        self._reopen([intent for intent, receipt in zip(on_record, asked, strict=True) if receipt is None])
        receipts = receipts | {intent.id: receipt for intent, receipt in zip(on_record, asked, strict=True) if receipt}
        for id, receipt in receipts.items():
            with self._lock:
                future = self._waiting.pop(id, None)
            if future is not None:
                future.set_result(cast(TxReceipt, AttributeDict.recursive(receipt_formatter(receipt))))

    # ------------------------------------------------------------- what is not mined

    def _see_to(self, left: Sequence[Intent], head: Any, number: int, count: int) -> None:
        if not self.allowed():
            return
        passed = [intent for intent in left if intent.nonce < count]
        if passed:
            self._see_to_taken(passed, number)
        ahead = [intent for intent in left if intent.nonce >= count]
        if not ahead:
            return
        lowest = ahead[0]
        since = lowest.newest.made if lowest.newest else lowest.made
        if not 0 <= time.time() - since < self.bump_after:
            if lowest.nonce == count:
                self._bump(lowest, head)
            else:
                self._fill(count, lowest)
        due = time.monotonic() - AGAIN_SECONDS
        self._push([intent for intent in ahead if self._sent.get(intent.id, due) <= due])

    def _bump(self, intent: Intent, head: Any) -> None:
        """Raises the fees of the lowest nonce, on which all others wait."""
        today = self._fees_today(head)
        fees = raised(intent.fees, today, self._settings.max_fee)
        if fees is None:
            self._note_refusal(
                intent, f"its fee can't be raised above the setting max_fee_gwei, {self._settings.max_fee_gwei}"
            )
            return
        bumped = self.store.replan(intent, fees)
        if bumped is not None:  # else another process was quicker
            log.info("sender.fee_raised", address=self.address, nonce=intent.nonce, most=fees.most, tip=fees.tip)
            self._push([bumped])

    def _see_to_taken(self, passed: Sequence[Intent], number: int) -> None:
        """Somebody used the key outside this lane. Only when that is as deep as can be are new nonces given."""
        block = hex(max(0, number - DEPTH))
        (settled,) = sure(ask(self._w3, [("eth_getTransactionCount", [self.address, block])]))
        lost = [intent for intent in passed if intent.nonce < int(settled, 16)]
        # Asked again after the count: what was mined so deep, the node knows by now.
        mined = self._look_for(lost)
        for intent in lost:
            if intent.id not in mined:
                self._move(intent)

    def _move(self, intent: Intent) -> None:
        (pending,) = sure(ask(self._w3, [("eth_getTransactionCount", [self.address, "pending"])]))
        moved = self.store.replan(intent, intent.fees, int(pending, 16))
        if moved is not None:
            log.warning("sender.nonce_taken", address=self.address, nonce=intent.nonce, now=moved.nonce)
            self._push([moved])

    def _fill(self, count: int, lowest: Intent) -> None:
        """A nonce before ours is nobody's any more (a foreign one was dropped): transfers of nothing fill it."""
        (pending,) = sure(ask(self._w3, [("eth_getTransactionCount", [self.address, "pending"])]))
        free = range(int(pending, 16), min(lowest.nonce, int(pending, 16) + FILLERS))
        fillers = self.store.plan_at(free, Draft(self.address, b"", 0, PLAIN_GAS), lowest.fees)
        if fillers:
            log.warning("sender.gap_filled", address=self.address, nonces=[filler.nonce for filler in fillers])
            self._push(fillers)

    def _push(self, intents: Sequence[Intent]) -> None:
        """Signs what is not signed, writes that down, and broadcasts."""
        if not intents or not self.allowed():
            return
        signed = [(intent, intent.newest or self._signer.sign(intent)) for intent in intents]
        new = [(intent.id, version) for intent, version in signed if intent.newest is None]
        if new:
            self.store.add_versions(new)
        now = time.monotonic()
        answers = self._broadcast([version.raw for _, version in signed])
        for (intent, _), answer in zip(signed, answers, strict=True):
            self._sent[intent.id] = now
            if isinstance(answer, Web3RPCError) and not any(word in str(answer.message).lower() for word in _HARMLESS):
                self._note_refusal(intent, f"the node says: {answer.message}")

    def _broadcast(self, raw: Sequence[bytes]) -> list[Any]:
        return ask(self._w3, [("eth_sendRawTransaction", [to_hex(one)]) for one in raw])

    def _fees_today(self, head: Any) -> Fees:
        (tip,) = sure(ask(self._w3, [("eth_maxPriorityFeePerGas", [])]))
        return fees_now(int(tip, 16), int(head.get("baseFeePerGas", "0x0"), 16), self._settings.max_fee)

    # ------------------------------------------------------------- what is mined

    def _look_back(self, head: str, number: int) -> bool:
        """Looks whether what is mined still is. Returns whether there is something that a reorg could undo."""
        settling = self.store.settling()
        if not settling or head == self._watched[0] or time.monotonic() < self._watched[1] + WATCH_EVERY:
            return bool(settling)
        answers = sure(ask(self._w3, [("eth_getTransactionReceipt", [intent.mined]) for intent in settling]))
        self._watched = (head, time.monotonic())
        gone, moved, final = [], [], []
        for intent, receipt in zip(settling, answers, strict=True):
            if receipt is None:
                gone.append(intent)
            elif int(receipt["blockNumber"], 16) != intent.block:
                moved.append(_mined(intent.id, receipt))
            elif intent.block + DEPTH <= number:
                final.append(intent.id)
        if moved:
            self.store.note_mined(moved)
        if final:
            self.store.finish(final)
        self._reopen(gone)
        return True

    def _reopen(self, intents: Sequence[Intent]) -> None:
        if not intents:
            return
        self.store.reopen([intent.id for intent in intents])
        for intent in intents:
            log.warning("sender.reorged", address=self.address, transaction=intent.mined, nonce=intent.nonce)
        self._wake.set()

    # ------------------------------------------------------------- trouble

    def _note_refusal(self, intent: Intent, problem: str) -> None:
        if self._refusals.get(intent.id) != problem:
            log.warning("sender.refused", address=self.address, nonce=intent.nonce, problem=problem)
        self._refusals[intent.id] = problem

    def _note_trouble(self, error: Exception) -> None:
        trouble = f"{type(error).__name__}: {error}"[:300]
        if trouble != self._trouble:
            known = isinstance(error, (*NODE_AWAY, sqlite3.Error))
            log.warning("sender.trouble", address=self.address, problem=trouble, exc_info=None if known else error)
        self._trouble = trouble


def _mined(id: int, receipt: Any) -> tuple[int, str, int]:
    """What a raw receipt says of an intent, as the file of intents notes it."""
    return id, receipt["transactionHash"], int(receipt["blockNumber"], 16)
