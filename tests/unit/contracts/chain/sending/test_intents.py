"""The file of intents: what was to be sent is sent once, whatever happens between."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.chain.sending.fees import Fees
from contracts.chain.sending.intents import KEEP_SECONDS, KEEP_UNNAMED_SECONDS, Draft, IntentStore, Version
from contracts.types import from_hex

TO = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
FEES = Fees(10, 100)


def draft(key: str | None = None, value: int = 0) -> Draft:
    return Draft(TO, b"\x01\x02", value, 21_000, key)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[IntentStore]:
    made = IntentStore(tmp_path / "intents" / "one.sqlite3")
    yield made
    made.close()


def test_nonces_go_on_from_the_higher_of_file_and_chain(store: IntentStore) -> None:
    assert [intent.nonce for intent in store.plan([draft(), draft()], FEES, 5)] == [5, 6]
    assert [intent.nonce for intent in store.plan([draft()], FEES, 5)] == [7]
    assert [intent.nonce for intent in store.plan([draft()], FEES, 20)] == [20]
    assert [intent.nonce for intent in store.open()] == [5, 6, 7, 20]


def test_what_is_final_frees_its_nonces(store: IntentStore) -> None:
    """The chain may lose even that: then its own count is right."""
    [intent] = store.plan([draft()], FEES, 5)
    store.note_mined([(intent.id, "0x01", 3)])
    assert store.plan([draft()], FEES, 5)[0].nonce == 6
    store.finish([one.id for one in store.settling() + store.open()])
    assert store.plan([draft()], FEES, 2)[0].nonce == 2


def test_all_of_an_intent_is_kept(store: IntentStore) -> None:
    [intent] = store.plan([draft("a", 2**100)], FEES, 0)
    version = Version("0xaa", 0, FEES, b"raw", time.time())
    store.add_versions([(intent.id, version), (intent.id, version)])
    again = IntentStore(store.path)
    [read] = again.open()
    again.close()
    assert (read.draft, read.nonce, read.fees, read.versions) == (draft("a", 2**100), 0, FEES, (version,))
    assert read.newest == version
    assert read.cost == 21_000 * 100 + 2**100


def test_a_known_key_is_the_same_intent(store: IntentStore) -> None:
    [first] = store.plan([draft("a")], FEES, 0)
    [same, other] = store.plan([draft("a", 7), draft("b")], FEES, 0)
    assert (same.id, other.nonce) == (first.id, 1)
    store.release("a")
    [new] = store.plan([draft("a")], FEES, 0)
    assert (new.id != first.id, new.nonce) == (True, 2)


def test_a_name_is_taken_from_one_intent_only(store: IntentStore) -> None:
    """Two that find out at once that it reverted: the second must not take the name of the first's repeat."""
    [reverted] = store.plan([draft("a")], FEES, 0)
    store.unname(reverted.id)
    [repeat] = store.plan([draft("a")], FEES, 0)
    store.unname(reverted.id)
    assert store.by_key("a") == repeat


def test_only_one_changes_the_plan(store: IntentStore) -> None:
    [intent] = store.plan([draft()], FEES, 0)
    bumped = store.replan(intent, Fees(20, 200))
    assert bumped is not None
    assert (bumped.fees, bumped.newest) == (Fees(20, 200), None)
    assert store.replan(intent, Fees(30, 300)) is None
    moved = store.replan(bumped, FEES, 9)
    assert moved is not None
    assert moved.nonce == 9
    store.note_mined([(intent.id, "0x01", 3)])
    assert store.replan(moved, Fees(30, 300)) is None


def test_finished_intents_go_in_time(store: IntentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    named, plain, open_ = store.plan([draft("a"), draft(), draft()], FEES, 0)
    store.note_mined([(named.id, "0x01", 3), (plain.id, "0x02", 3)])
    store.finish([named.id, plain.id])
    now = time.time()

    def kept(seconds: float) -> set[int]:
        monkeypatch.setattr(time, "time", lambda: now + seconds)
        store.finish([])
        return {one.id for one in store.mined_among([named.id, plain.id]) + store.open()}

    assert kept(KEEP_UNNAMED_SECONDS - 10) == {named.id, plain.id, open_.id}
    assert kept(KEEP_UNNAMED_SECONDS + 10) == {named.id, open_.id}
    assert kept(KEEP_SECONDS + 10) == {open_.id}


def test_another_chain_with_the_same_id_starts_empty(store: IntentStore) -> None:
    assert store.bind("0xaa") == 0
    [intent] = store.plan([draft("a")], FEES, 5)
    store.add_versions([(intent.id, Version("0x01", 5, FEES, b"", 0.0))])
    assert store.bind("0xaa") == 0
    assert store.by_key("a") is not None
    assert store.bind("0xbb") == 1
    assert store.by_key("a") is None
    assert store.plan([draft()], FEES, 0)[0].nonce == 0


def test_only_free_nonces_are_filled(store: IntentStore) -> None:
    store.plan([draft()], FEES, 5)
    assert [filler.nonce for filler in store.plan_at(range(3, 7), draft(), FEES)] == [3, 4, 6]
    assert from_hex(store.open()[0].draft.to) == from_hex(TO)


def test_a_full_disk_is_survived(store: IntentStore) -> None:
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.plan([draft(f"key {n}") for n in range(1000)], FEES, 0)
    assert store.open() == []
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert store.plan([draft()], FEES, 0)[0].nonce == 0
