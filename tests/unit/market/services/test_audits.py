"""Audit notes: which are taken, who sees them, and that a journal brings them back."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from contracts.api.auditing.notes import (
    AuditNoteIn,
    BatchContent,
    CommitmentContent,
    DrawnClaim,
    ReplayContent,
    RulingContent,
    SecretContent,
    check_note,
    signed_note,
)
from contracts.api.problems import Code, Problem
from contracts.audits.draw import commitment
from contracts.orders import new_account
from contracts.types import ZERO_HASH
from market.store.audit_notes import AuditNoteRow
from market.store.models import LeaseRow
from tests.support.live_lease import refuses
from tests.support.market_parts import make_bid, signed_bid
from tests.support.offline_market import DOMAIN, RULES, World, replayed, stored

SECRET = bytes(range(32))
COMMITTED = CommitmentContent(commitment=commitment(SECRET))
SHOWN = SecretContent(secret="0x" + SECRET.hex())
BATCH = BatchContent(
    claims=[DrawnClaim(n=n, tip="0x" + f"{n:040x}") for n in (1, 2)], block=7, block_hash=ZERO_HASH, drawn=[2]
)
REPLAY = ReplayContent(n=2, auditor=None, job=None, outcome="differs", root="0x" + "ab" * 32)
RULING = RulingContent(n=2, ruling="false")
CONTENTS = (COMMITTED, BATCH, REPLAY, RULING)


@pytest.fixture
def audited(world: World) -> LeaseRow:
    """A lease with an approver of its own."""
    world.approver = new_account()  # type: ignore[attr-defined]
    bid = make_bid(world.client, world.context.matcher, RULES, world.spec, approver=world.approver.address)  # type: ignore[attr-defined]
    return world.lease(bid=signed_bid(bid, DOMAIN, world.client, world.spec))


def note(world: World, lease: LeaseRow, content: Any, **changes: Any) -> AuditNoteIn:
    fields = {"time": int(time.time()), "domain": DOMAIN, "key": world.approver} | changes  # type: ignore[attr-defined]
    return signed_note(lease.id, content, **fields)


def post(world: World, lease: LeaseRow, content: Any, **changes: Any) -> Callable[[], object]:
    body = note(world, lease, content, **changes)
    return lambda: world.api.post_audit_note(body)


def test_notes_are_shown_as_they_were_signed(world: World, audited: LeaseRow) -> None:
    posted = [world.api.post_audit_note(note(world, audited, content)) for content in CONTENTS]
    world.update_lease(audited.id, finished="closed")
    posted.append(world.api.post_audit_note(note(world, audited, SHOWN)))
    found = list(world.api.audit_notes(lease=audited.id))
    assert found == posted == list(world.api.audit_notes(job=audited.bid, approver=audited.approver))
    assert [one.content for one in found] == [*CONTENTS, SHOWN] and sorted(one.id for one in found) == [
        one.id for one in found
    ]
    assert [check_note(one, DOMAIN, audited.approver) for one in found] == [None] * 5
    assert list(world.api.audit_notes(lease=ZERO_HASH)) == list(world.api.audit_notes(job=ZERO_HASH)) == []
    assert list(world.api.audit_notes(approver=audited.client)) == []
    ruling = [one for one in found if one.content == RULING]
    assert list(world.api.audit_notes(provider=audited.provider, kind="ruling")) == ruling != []
    assert list(world.api.audit_notes(provider=audited.client)) == []
    pages, after = [], None
    while True:
        page = world.api._http.get("/v1/audits", params={"limit": 2} | ({"after": after} if after else {})).json()
        pages.append([one["id"] for one in page["items"]])
        if (after := page["next"]) is None:
            break
    assert [id for page in pages for id in page] == [one.id for one in found] and len(pages[0]) == 2


def test_a_journal_brings_notes_back(world: World, audited: LeaseRow) -> None:
    for content in CONTENTS:
        world.api.post_audit_note(note(world, audited, content))
    assert replayed(world, AuditNoteRow) == stored(world, AuditNoteRow) != []


def test_the_same_again_is_the_same_note(world: World, audited: LeaseRow) -> None:
    first = world.api.post_audit_note(note(world, audited, BATCH))
    again = world.api.post_audit_note(note(world, audited, BATCH, time=int(time.time()) - 5))
    assert again == first and world.count(AuditNoteRow) == 1


def test_notes_that_are_refused(world: World, audited: LeaseRow) -> None:
    refuses(world, post(world, audited, COMMITTED, key=world.client), 422, Code.SIGNATURE_INVALID)
    refuses(world, post(world, audited, COMMITTED, key=world.provider), 422, Code.SIGNATURE_INVALID)
    refuses(world, post(world, audited, COMMITTED, time=int(time.time()) + 400), 422, Code.REPORT_STALE)
    beyond = RulingContent(n=audited.end + 1, ruling="good")
    problem = refuses(world, post(world, audited, beyond), 422, Code.PROGRESS_OUT_OF_ORDER)
    assert f"covers {audited.start + 1} to {audited.end}" in problem.message
    unknown = audited.model_copy(update={"id": ZERO_HASH})
    refuses(world, post(world, unknown, COMMITTED), 404, Code.NOT_FOUND)
    assert world.count(AuditNoteRow) == 0


def test_a_body_that_is_not_what_the_note_signs_is_refused(world: World, audited: LeaseRow) -> None:
    body = note(world, audited, RULING)
    for changed in ({"content": RulingContent(n=2, ruling="good")}, {"content": COMMITTED}):
        given = body.model_copy(update=changed)
        refuses(world, lambda given=given: world.api.post_audit_note(given), 422, Code.VALIDATION_FAILED)


def test_one_commitment_and_a_secret_that_hashes_to_it_when_the_lease_is_over(world: World, audited: LeaseRow) -> None:
    world.update_lease(audited.id, finished="closed")
    refuses(world, post(world, audited, SHOWN), 422, Code.COMMITMENT_MISMATCH)  # to nothing
    world.update_lease(audited.id, finished=None)
    world.api.post_audit_note(note(world, audited, COMMITTED))
    other = CommitmentContent(commitment=commitment(bytes(32)))
    refuses(world, post(world, audited, other), 409, Code.PROGRESS_OUT_OF_ORDER)
    problem = refuses(world, post(world, audited, SHOWN), 409, Code.PROGRESS_OUT_OF_ORDER)
    assert "is not over" in problem.message
    world.update_lease(audited.id, finished="completed")
    wrong = SecretContent(secret=ZERO_HASH)
    refuses(world, post(world, audited, wrong), 422, Code.COMMITMENT_MISMATCH)
    shown = world.api.post_audit_note(note(world, audited, SHOWN))
    assert world.api.post_audit_note(note(world, audited, SHOWN)) == shown


def test_notes_are_kept_so_there_is_no_end_of_them(
    world: World, audited: LeaseRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("market.services.auditing.notes.PER_HOUR", 2)
    for n in (1, 2):
        world.api.post_audit_note(note(world, audited, RulingContent(n=n, ruling="good")))
    with pytest.raises(Problem) as caught:
        world.api.post_audit_note(note(world, audited, RULING))
    assert caught.value.status == 429


def test_what_a_market_made_up_is_seen(world: World, audited: LeaseRow) -> None:
    out = world.api.post_audit_note(note(world, audited, RULING))
    forged = out.model_copy(update={"content": RulingContent(n=2, ruling="good")})
    assert "signs a content with the hash" in (check_note(forged, DOMAIN, audited.approver) or "")
    assert "is not signed by" in (check_note(out, DOMAIN, world.client.address) or "")
    assert "is shown for lease" in (check_note(out.model_copy(update={"lease": ZERO_HASH}), DOMAIN, "") or "")
    renamed = out.model_copy(update={"content": COMMITTED})
    assert "its content of 'commitment'" in (check_note(renamed, DOMAIN, audited.approver) or "")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: BATCH.model_validate(BATCH.model_dump() | {"drawn": [2, 1]}), "in ascending order"),
        (lambda: BATCH.model_validate(BATCH.model_dump() | {"drawn": [3]}), "give some of"),
        (lambda: BATCH.model_validate(BATCH.model_dump() | {"claims": BATCH.claims[::-1]}), "follow each other"),
        (lambda: ReplayContent(n=1, auditor=None, job=None, outcome="equal", root=ZERO_HASH), "if it differs"),
        (lambda: ReplayContent(n=1, auditor=None, job=None, outcome="differs", root=""), "if it differs"),
    ],
)
def test_contents_that_mean_nothing(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make()
