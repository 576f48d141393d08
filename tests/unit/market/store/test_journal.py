"""The journal's order is that of acceptance, whatever clocks say and whoever crashed."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from contracts.api.problems import Problem
from contracts.errors import UserError
from market.maintenance import reindex
from market.runtime import context
from market.server import check_journal
from market.store import apply
from market.store.journal import Journal, Message
from market.store.models import CheckpointRow, ReportRow
from tests.support.market_parts import RECIPE, make_record, signed_progress, signed_report, upload
from tests.support.offline_market import DOMAIN, World, replayed, stored


def backwards() -> Iterator[datetime]:
    """A clock that is set back by an hour before each look."""
    return (datetime(2026, 1, 1, tzinfo=UTC) - timedelta(hours=hours) for hours in itertools.count())


def test_the_order_is_that_of_acceptance_not_of_clocks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = world.lease()
    clock = backwards()
    monkeypatch.setattr(context, "now", lambda: next(clock))
    for turn in range(4):
        world.context.journal = Journal(world.context.journal.folder)  # as another process would
        record = make_record(lease.job, 1, lease.start_tip, trace_root=f"0x{turn:064x}")  # in place of the one before
        world.api.post_progress(signed_progress(lease.id, record, DOMAIN, world.provider))
    assert len(list(world.context.journal.folder.glob("*.jsonl"))) == 5
    assert stored(world, CheckpointRow)[0]["tip"] == record.tip
    assert replayed(world, CheckpointRow) == stored(world, CheckpointRow)


def test_what_did_not_commit_is_not_replayed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between the journal and the commit; then its sender tells it again, and PostgreSQL gives another id."""
    lease = world.lease()
    body = signed_report(lease.id, 1, "log", "so far", world.context.now(), DOMAIN, world.provider)
    append = Journal.append

    def crash(journal: Journal, message: Message) -> None:
        append(journal, message.model_copy(update={"facts": message.facts | {"id": 1_000}}))
        raise OSError("power cut")

    monkeypatch.setattr(Journal, "append", crash)
    with pytest.raises(Problem, match="the market failed"):
        world.api.post_report(body)
    monkeypatch.setattr(Journal, "append", append)
    world.context.journal = Journal(world.context.journal.folder)
    # Nothing came after it: it may have been taken.
    assert [row["id"] for row in replayed(world, ReportRow)] == [1_000]
    assert stored(world, ReportRow) == []
    world.api.post_report(body)
    # The database knows which of the two it was; from the next message on the journal does, too.
    newest = reindex.newest_message(world.context.db)
    assert newest in [message.id for message in world.context.journal.read(newest)]
    assert len([message for message in world.context.journal.read(newest) if message.kind == "report"]) == 1
    world.api.post_ask(world.ask())
    assert replayed(world, ReportRow) == stored(world, ReportRow) != []


def test_journals_of_former_versions_come_first_by_their_clock(world: World) -> None:
    world.lease()
    folder = world.context.journal.folder
    (path,) = folder.glob("*.jsonl")
    lines = [Message.model_validate_json(line) for line in path.read_bytes().splitlines()]
    old = Journal(folder)
    for message in reversed(lines):  # two files, the second has the earlier lines
        without = message.model_copy(update={"number": None, "id": "", "after": ""})
        path.unlink(missing_ok=True)
        old.append(without)
    assert [message.received for message in old.read()] == sorted(message.received for message in lines)
    assert old.reached() == 0
    with world.context.db.session() as session:
        for table in reversed(reindex.tables()):
            session.execute(table.delete())
    world.context.journal = Journal(folder)
    for _ in range(2):
        upload(world.context, world.client.address, RECIPE)
    assert [message.number for message in Journal(folder).read()] == [None] * len(lines) + [1, 2]


def test_a_database_older_than_its_journal_is_not_served(world: World) -> None:
    """A backup that was restored without `market reindex` would number new messages as old ones."""
    world.lease()
    with world.context.db.reading() as session:
        known = session.exec(select(apply.JournalRow)).one()
    assert world.context.journal.reached() == known.number > 2
    check_journal(world.context)
    for behind, fits in ((1, True), (2, False)):  # one more may be of a crash
        with world.context.db.session() as session:
            session.merge(apply.JournalRow(number=known.number - behind, message="of then"))
        if fits:
            check_journal(world.context)
        else:
            with pytest.raises(UserError, match=f"knows {known.number - 2} .* has {known.number}") as caught:
                check_journal(world.context)
            assert "gpumarket market reindex" in (caught.value.hint or "")


def test_the_end_of_a_long_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(1, 4):
        facts = {"text": "x" * 200_000}
        journal.append(Message(kind="upload", number=number, received=datetime.now(UTC), received_block=0, body=facts))
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("a") as file:
        file.write('{"kind": "upl')
    assert journal.reached() == 3
    path.write_text("{}\n")
    with pytest.raises(UserError, match="the last line of"):
        journal.reached()
