"""A list of other people's messages: one that can't be read hides none of the others."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from contracts.api.bodies import ReportOut
from contracts.api.lists import ListReader, UnreadableItem
from contracts.errors import UserError
from contracts.orders import Report
from contracts.types import ZERO_HASH


def answer(content: bytes) -> Any:
    return SimpleNamespace(content=content)


def report(id: int) -> dict[str, Any]:
    made = ReportOut(
        id=id,
        provider="0x" + "11" * 20,
        report=Report(lease=ZERO_HASH, n=id, kind="log", content=ZERO_HASH, time=1),
        signature="0x" + "22" * 64,
        text="so far",
        received="2026-01-01T00:00:00Z",  # type: ignore[arg-type]
    )
    return json.loads(made.model_dump_json(by_alias=True))  # type: ignore[no-any-return]


BAD: list[Any] = [
    report(7) | {"signature": "none"},
    report(7) | {"id": None},
    report(7) | {"more": 1},
    report(7) | {"report": {"lease": "x"}},
    {"id": 7},
    [], "a text", None, 3, float("inf"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_the_others_are_given(bad: Any) -> None:
    reader, skipped = ListReader(), []
    reader.on_skipped = lambda: skipped.append(1)
    content = json.dumps({"items": [report(1), bad, report(2)], "next": "there"}).encode()
    with capture_logs() as logs:
        for _ in range(3):
            page = reader.read(ReportOut, "/v1/reports", answer(content))
            assert ([one.id for one in page.items], page.next) == ([1, 2], "there")
    assert len(skipped) == 3
    assert [line["event"] for line in logs] == ["market.unreadable_item"]  # told once
    assert logs[0]["path"] == "/v1/reports" and logs[0]["problem"]


@pytest.mark.parametrize("bad", BAD)
def test_where_all_are_needed_none_is_skipped(bad: Any) -> None:
    content = json.dumps({"items": [report(1), bad, report(2)], "next": None}).encode()
    with pytest.raises(UnreadableItem, match=r"this program can't read .* of /v1/reports: ") as caught:
        ListReader().read(ReportOut, "/v1/reports", answer(content), whole=True)
    assert "another version of gpumarket" in str(caught.value.hint)


def test_a_bad_item_is_named() -> None:
    content = json.dumps({"items": [report(7) | {"text": 5}], "next": None}).encode()
    with capture_logs() as logs:
        assert ListReader().read(ReportOut, "/v1/reports", answer(content)).items == []
    assert (logs[0]["item"], logs[0]["problem"].partition(":")[0]) == (f"id 7, provider 0x{'11' * 20}", "text")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"<html>", b'{"items": 3}', b'{"items": [], "next": 5}', b"[" * 9999]
)
def test_what_is_no_page_is_no_list(content: bytes) -> None:
    with pytest.raises(UserError, match="does not fit"):
        ListReader().read(ReportOut, "/v1/reports", answer(content))
