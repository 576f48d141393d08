"""What an earlier version left on disk under this one: it goes on, or it is told that it can't, and is left alone.

Protocol 2 has another escrow, so what lives on one of protocol 1 goes on with a program of that version only. The
archives were made as make_home.py tells. All that is done here a user could do: install the new version, start
everything again.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.golden.make_home import OF_PROTOCOL_1, OF_PROTOCOL_2, Place, unpack

JOBS = {"whole": ("done", 2), "sealed": ("done", 1), "halfway": ("running", 2)}  # status, accepted checkpoints


@pytest.fixture
def old(tmp_path: Path) -> Iterator[tuple[Place, dict[str, str]]]:
    """The place with its chain and its market running, at new ports; and its jobs."""
    place, facts = unpack(tmp_path, OF_PROTOCOL_2)
    with place:
        place.start_chain()
        move(place.home / "config.toml", facts["rpc_url"], place.rpc_url)
        place.start_market()
        for file in ("config.toml", "provider/rig/provider.toml"):
            move(place.home / file, facts["market_url"], place.market_url)
        yield place, facts["jobs"]


@pytest.mark.long
def test_a_home_of_protocol_1_is_told_and_left_alone(tmp_path: Path) -> None:
    place, facts = unpack(tmp_path, OF_PROTOCOL_1)
    with place:
        place.start_chain()
        move(place.home / "config.toml", facts["rpc_url"], place.rpc_url)
        before = contents(place.home)
        for command in (
            ("market", "serve", "--port", "0"),
            ("provider", "start", "--key", "rig"),
            ("approver", "start", "--key", "approver"),
            ("wallet", "withdraw", "1", "--key", "me"),
        ):
            with pytest.raises(AssertionError, match="is of version '1' of 'gpumarket', this program signs for"):
                place.run(*command)
        assert contents(place.home) == before
        assert place.run("wallet", "address", "me").startswith("0x")


def contents(home: Path) -> dict[str, bytes]:
    """What is worth anything: not logs and locks."""
    kept = (path for path in home.rglob("*") if path.is_file() and path.suffix not in (".log", ".lock"))
    return {str(path.relative_to(home)): path.read_bytes() for path in kept}


def move(file: Path, before: str, now: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, now))


@pytest.mark.long
def test_a_home_of_before_goes_on(old: tuple[Place, dict[str, str]]) -> None:
    place, ids = old
    again, job = str(place.folder / "again.json"), str(place.jobs / "halfway")
    uninterrupted = place.start("uninterrupted", "recipe", "run", job, "--json", again)
    jobs = {name: place.get(f"jobs/{id}") for name, id in ids.items()}
    assert {name: (job["status"], place.approved(job["id"])) for name, job in jobs.items()} == JOBS
    (lease,) = jobs["halfway"]["leases"]
    assert int(lease["paid"]) == int(lease["price"])  # for one of the two
    before = place.checkpoints(ids["halfway"])

    place.start("approver", "approver", "start", "--key", "approver", "--poll", "0.5")
    place.start("provider", "provider", "start", "--key", "rig", "--json-logs")
    the_results_can_be_fetched(place, ids["whole"], 2)
    the_results_can_be_fetched(place, ids["sealed"], 1)  # with the client's encryption key of before
    the_lease_went_on(place, ids["halfway"], lease, before)
    the_results_can_be_fetched(place, ids["halfway"], 5)
    its_bits_are_those_of_a_run_without_interruption(place, uninterrupted, ids["halfway"])
    provider_and_chain_agree(place, [place.get(f"jobs/{id}") for id in ids.values()])
    for what in ("provider", "approver", "market"):
        place.stop(what)
    the_database_can_be_made_anew(place)
    checks = json.loads(place.run("reconcile", "-o", "json"))
    assert checks and not any(check["differences"] for check in checks)


def the_results_can_be_fetched(place: Place, job: str, checkpoints: int) -> None:
    """All of them, verified tip by tip against the chain."""
    pulled = place.run("job", "pull", job, str(place.folder / "pulled" / job), "--all", "--key", "me", "-o", "json")
    assert [one["checkpoint"] for one in json.loads(pulled)] == list(range(1, checkpoints + 1))


def the_lease_went_on(place: Place, job: str, lease: dict[str, Any], before: list[dict[str, Any]]) -> None:
    """From its second checkpoint, and all five are paid."""
    place.wait_for("the job's end", lambda: place.get(f"jobs/{job}")["status"] == "done")
    logged = place.events("provider")
    assert [event["after"] for event in logged if event["event"] == "training.starts"] == [2]
    assert [event["n"] for event in logged if event["event"] == "checkpoint.made"] == [3, 4, 5]
    after = place.checkpoints(job)
    assert after[:2] == before and {one["lease"] for one in after} == {lease["id"]}
    (ended,) = place.get(f"jobs/{job}")["leases"]
    assert (ended["id"], ended["finished"]) == (lease["id"], "completed")
    assert (int(ended["paid"]), int(ended["penalty"])) == (5 * int(lease["price"]), 0)


def its_bits_are_those_of_a_run_without_interruption(
    place: Place, uninterrupted: "subprocess.Popen[bytes]", job: str
) -> None:
    """The first two were made on another machine: the recipe's arithmetic is exact, tips name the machine's kind."""
    assert uninterrupted.wait(300) == 0, place.log("uninterrupted").read_text()
    run = json.loads((place.folder / "again.json").read_text())
    records = [one["checkpoint"] for one in place.checkpoints(job)]
    for record, again in zip(records, run["checkpoints"], strict=True):
        expected = (again["state_root"], again["trace_root"], run["metrics"][str(record["step"])])
        assert (record["state_root"], record["trace_root"], record["metrics"]) == expected
    if all(record["numerics"] == run["numerics"] for record in records):
        assert [record["tip"] for record in records] == [again["tip"] for again in run["checkpoints"]]


def provider_and_chain_agree(place: Place, jobs: list[dict[str, Any]]) -> None:
    """About all earnings, those of before among them."""

    def report() -> Any:
        (found,) = json.loads(place.run("provider", "status", "--key", "rig", "-o", "json"))
        return found["live"] == [] and found

    found = place.wait_for("the agent to see the lease's end", report)
    assert int(found["earned"]) == sum(int(job["paid"]) for job in jobs) > 0
    assert [lease["penalty"] for lease in found["ended"]] == ["0"] * 3


def the_database_can_be_made_anew(place: Place) -> None:
    """From journal, blobs and chain of before and after: nothing differs from the one that was migrated."""
    same = json.loads(place.run("market", "reindex", "--dry-run", "-o", "json"))
    assert same["differences"] == []
    (place.home / "market" / "market.sqlite3").unlink()
    made = json.loads(place.run("market", "reindex", "--yes", "-o", "json"))
    assert made["replaced"] and made["rows"] == same["rows"]
