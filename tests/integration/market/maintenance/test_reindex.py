"""The database made anew from journal, blobs and chain is the one that was."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import SQLModel, select
from typer.testing import CliRunner

from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from contracts.errors import UserError
from contracts.program import progress_bar
from market.cli.market import app
from market.cli.reconcile import app as reconciling
from market.maintenance import reindex
from market.runtime import context
from market.store.columns import now
from market.store.journal import FOLDER, Journal
from market.store.models import (
    ApprovalRow,
    BidRow,
    CheckpointRow,
    EpochRow,
    LeaseRow,
    MatchRow,
    ReplacedClaimRow,
    ReportRow,
)
from tests.support.devnet import TOKEN, Funded
from tests.support.stepped_market import Lives, lives

sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def market(
    chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lives]:
    """After a life with all that can happen in one, a clock that is set back again and again among it."""
    seconds = itertools.count(step=-100)
    monkeypatch.setattr(context, "now", lambda: now() + timedelta(seconds=next(seconds)))
    people = funded(2) + funded(4, free=100 * TOKEN)
    with lives(chain, tmp_path, people, devnet.settings.rules["unchecked"], database_url) as made:
        live(made)
        yield made


def live(market: Lives) -> None:
    job, dear = market.post_bid(), market.post_bid(max_price=1)
    market.post_ask(market.providers[0])
    market.clear()
    lease = market.lease_of(job)
    tip = market.make(lease, 1)
    market.report(lease, 2, tip, state_root="0x" + "11" * 32)  # is rejected, and then replaced
    market.approver.approve_reported()
    tip = market.make(market.api.lease(lease.id), 1)
    market.say(lease, "log", 2, "so far so good")
    for number in range(3):  # and two of these are kept, until there is a word on one
        market.report(lease, 3, tip, trace_root=f"0x{number:064x}")
    market.say(lease, "release", 2)
    market.approver.answer_releases()
    market.redeem(lease)
    for turn in range(3):
        market.post_ask(market.providers[1], price_per_hour=1_800_000_000 + turn)
        assert market.clear() is not None
        failing = market.lease_of(job)
        market.say(failing, "failed", failing.start + 1, "ValueError: no")
        market.approver.answer_releases()
        market.redeem(failing)
    assert (market.api.job(job.id).status, market.api.job(dear.id).status) == ("failed", "pending")
    filled = (BidRow, LeaseRow, CheckpointRow, ReplacedClaimRow, ApprovalRow, ReportRow, EpochRow, MatchRow)
    assert all(rows(market, model) for model in filled)


def rows(market: Lives, model: Any) -> list[dict[str, Any]]:
    with market.context.db.reading() as session:
        return [row.model_dump() for row in session.exec(select(model))]


def everything(market: Lives) -> dict[str, list[str]]:
    """All tables but `wait_reason`, which the next clearing writes."""
    with market.context.db.reading() as session:
        found = {table.name: session.execute(table.select()).mappings().all() for table in reindex.tables()}
    return {
        name: sorted(json.dumps({**row, "wait_reason": None}, default=str, sort_keys=True) for row in all_rows)
        for name, all_rows in found.items()
    }


def differences(market: Lives) -> list[str]:
    with reindex.scratch() as new:
        build(market, new)
        return list(map(str, reindex.compare(market.context.db, new)))


def build(market: Lives, new: Any) -> None:
    context = market.context
    journal = Journal(context.settings.blob_dir / FOLDER)  # as another process sees it
    reindex.build(new, market.chain, journal, context.blobs, until=reindex.height(context.db))


def replace(market: Lives) -> None:
    with reindex.scratch() as new, reindex.as_only_market(market.context.db) as leadership:
        build(market, new)
        reindex.replace(market.context.db, new, leadership)


def test_all_tables_are_equal_and_a_lost_database_comes_back(market: Lives) -> None:
    assert differences(market) == []
    before = everything(market)
    with market.context.db.session() as session:
        for table in reversed(SQLModel.metadata.sorted_tables):
            session.execute(table.delete())
    assert len(differences(market)) > 20
    replace(market)
    assert everything(market) == before
    # And it goes on: the next report has an id of its own, the next epoch a number of its own.
    job = market.post_bid()
    market.post_ask(market.providers[2])
    assert market.clear() is not None
    market.say(market.lease_of(job), "log", 0, "again")
    assert differences(market) == []


@sqlite
def test_each_lie_is_named_and_mended(market: Lives) -> None:
    before = everything(market)
    with market.context.db.session() as session:
        session.delete(session.exec(select(ApprovalRow)).first())
        lease = session.exec(select(LeaseRow)).first()
        checkpoint = session.exec(select(CheckpointRow)).first()
        assert lease is not None and checkpoint is not None
        lease.paid += 1
        checkpoint.reason = "made up"
        session.add(EpochRow(number=1_000, order_root="0x" + "11" * 32))
    found = differences(market)
    assert len(found) == 4
    for says in ("approval", "paid is", "reason is made up", "epoch 1000 is neither in the journal nor on chain"):
        assert any(says in line for line in found), (says, found)
    replace(market)
    assert everything(market) == before


@sqlite
def test_the_journal_of_two_processes_and_its_damage(market: Lives) -> None:
    journal = market.context.journal
    other = Journal(journal.folder)
    for message in journal.read()[:5]:
        other.append(message)  # written down twice: a process died before it could commit, and was told again
    assert len(list(journal.folder.glob("*.jsonl"))) == 2
    assert differences(market) == []
    path = min(journal.folder.glob("*.jsonl"))
    with path.open("a") as file:
        file.write('{"kind": "ask", "rec')
    assert differences(market) == []
    path.write_text(path.read_text().replace('"kind":"bid"', '"kind":"bit"', 1))
    with pytest.raises(UserError, match=rf"line \d+ of {path} is no message"):
        journal.read()


def write_as_of_old(market: Lives) -> tuple[str, str]:
    """What a market wrote that took infinite numbers, and a line that was damaged. Returns what names each."""
    journal = market.context.journal
    taken = next(message for message in journal.read() if message.kind == "progress")
    lease, record = taken.body["claim"]["lease"], taken.body["checkpoint"]
    path = min(journal.folder.glob("*.jsonl"))
    bad = json.loads(taken.model_dump_json()) | {"number": None, "id": "bad0", "after": ""}
    bad["body"] = taken.body | {"checkpoint": record | {"seconds": float("inf")}}
    with path.open("a") as file:
        file.write(json.dumps(bad) + "\n" + '{"kind": "progress", "rec\n')
    with market.context.db.session() as session:  # as SQLite kept it
        row = session.get_one(CheckpointRow, (lease, taken.body["claim"]["n"]))
        row.record = row.record | {"seconds": None}
    return "progress bad0", f"line {len(path.read_text().splitlines())} of {path}"


@sqlite
@pytest.mark.long
def test_a_journal_of_an_old_market_is_read_to_its_end(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    context, before = market.context, everything(market)
    infinite, damaged = write_as_of_old(market)
    monkeypatch.setenv("GPUMARKET_MARKET_DATABASE_URL", context.settings.database_url)
    monkeypatch.setenv("GPUMARKET_MARKET_BLOB_DIR", str(context.settings.blob_dir))
    monkeypatch.setattr("market.maintenance.reconcile.SECONDS_BETWEEN", 0)
    run = CliRunner().invoke
    told = run(reconciling, [], env={"COLUMNS": "300"})
    assert told.exit_code == 1, told.output
    for says in (infinite, damaged, "checkpoint.seconds", "journal: messages that can be read"):
        assert says in told.output, told.output
    made = run(app, ["reindex", "--yes", "-o", "json"])
    assert made.exit_code == 1, made.output
    found = json.loads(made.stdout)
    assert len(found["left_out"]) == 2 and found["replaced"]
    assert any(infinite in line for line in found["left_out"]) and any(damaged in line for line in found["left_out"])
    assert everything(market) == before  # the good one of the same checkpoint is there again
    again = run(app, ["reindex"])
    assert again.exit_code == 1 and "left out  2 of the journal's messages" in again.output
    assert "the database is what it should be" in again.output


@sqlite
@pytest.mark.long
def test_the_command(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    context = market.context
    monkeypatch.setenv("GPUMARKET_MARKET_DATABASE_URL", context.settings.database_url)
    monkeypatch.setenv("GPUMARKET_MARKET_BLOB_DIR", str(context.settings.blob_dir))
    run = CliRunner().invoke
    equal = run(app, ["reindex"])
    assert (equal.exit_code, "the database is what it should be" in equal.output) == (0, True), equal.output
    assert "messages of the journal" not in equal.stderr  # it was quick
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.0)
    slow = run(app, ["reindex"])
    for says in ("messages of the journal 3 of ", "blobs 1\n", "blocks of the chain", "tables compared 0 of "):
        assert says in slow.stderr, slow.stderr
    with context.db.session() as session:
        session.delete(session.exec(select(ApprovalRow)).first())
    dry = run(app, ["reindex", "--dry-run"])
    assert dry.exit_code == 1 and "differs   approval" in dry.output and "nothing was changed" in dry.output
    refused = run(app, ["reindex"], input="n\n")
    assert refused.exit_code == 1 and differences(market)
    done = run(app, ["reindex", "--yes"])
    assert done.exit_code == 0 and "made anew" in done.output, done.output
    assert differences(market) == []
    command = [sys.executable, "-m", "contracts.cli.main", "market", "reindex", "--output", "json"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert json.loads(told.stdout) == {"differences": [], "rows": reindex.count(context.db), "replaced": False}
    assert told.stderr == ""
