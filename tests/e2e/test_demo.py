"""The demo as a newcomer runs it: everything it says about itself must hold."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

SILENCE = "120"  # seconds that cost a provider its lease: other tests run beside this one


@pytest.mark.timeout(2400)  # beyond what the demo gives itself
def test_the_demo_holds(tmp_path: Path) -> None:
    file = tmp_path / "outcome.json"
    done = subprocess.run(
        [ROOT / "scripts" / "demo", "--timeout", SILENCE, "--json", file],
        capture_output=True,
        text=True,
        timeout=2300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    outcome: dict[str, Any] = json.loads(file.read_text())
    all_jobs_are_done(outcome)
    the_killed_providers_job_moved_from_its_last_accepted_checkpoint(outcome)
    everybody_was_paid_for_exactly_what_was_accepted(outcome)
    a_replay_agreed_and_a_lie_cost_its_stake(outcome)
    assert outcome["reconciled"] is True
    assert outcome["audited"] is True
    assert outcome["verified"] is True
    assert outcome["bit_identical"] is True


def all_jobs_are_done(outcome: dict[str, Any]) -> None:
    assert [(job["name"], job["status"]) for job in outcome["jobs"]] == [
        ("digits", "done"),
        ("chargpt", "done"),
        ("small", "done"),
    ]
    assert all(job["checkpoints"] == job["wanted"] > 1 for job in outcome["jobs"])


def the_killed_providers_job_moved_from_its_last_accepted_checkpoint(outcome: dict[str, Any]) -> None:
    (moved,) = [job for job in outcome["jobs"] if outcome["killed"] in {lease["provider"] for lease in job["leases"]}]
    first = next(lease for lease in moved["leases"] if lease["provider"] == outcome["killed"])
    after = moved["leases"][moved["leases"].index(first) + 1]
    assert first["finished"] == "closed" and first["start"] < first["state"]["accepted"] < first["end"]
    assert after["start"] == first["state"]["accepted"] and after["provider"] != outcome["killed"]


def a_replay_agreed_and_a_lie_cost_its_stake(outcome: dict[str, Any]) -> None:
    lie, parties = outcome["lie"], outcome["parties"]
    assert lie["agreed"] >= 1
    assert "checkpoint 2 differs" in lie["noticed"] and lie["ended"] == "the arbiter: false"
    lied_to = outcome["jobs"][2]
    lied, *later = lied_to["leases"]
    assert lied["provider"] == parties["smog"]["address"] and lied["verdict"] == "false"
    assert lied["state"]["accepted"] == 1 and {lease["provider"] for lease in later} == {parties["tide"]["address"]}
    lost = int(parties["smog"]["before"]) - int(parties["smog"]["after"])
    assert lost == int(lied["stake"]) - int(lied["paid"])
    rest = int(lied["stake"]) - (fee := change(outcome, "arbiter"))
    assert fee > 0 and change(outcome, "carol") == rest - rest // 5 - int(lied_to["paid"]) - int(lied_to["fees"])
    replayed = sum(int(job["paid"]) + int(job["fees"]) for job in outcome["replays"])
    assert change(outcome, "approver") == rest // 5 - replayed


def change(outcome: dict[str, Any], name: str) -> int:
    return int(outcome["parties"][name]["after"]) - int(outcome["parties"][name]["before"])


def everybody_was_paid_for_exactly_what_was_accepted(outcome: dict[str, Any]) -> None:
    earned: dict[str, int] = {}
    for job in outcome["jobs"] + outcome["replays"]:
        assert sum(int(lease["paid"]) for lease in job["leases"]) == int(job["paid"]) > 0
        for lease in job["leases"]:
            accepted = lease["state"]["accepted"] - lease["start"]
            assert int(lease["paid"]) == accepted * int(lease["price"])
            rest = lease["end"] - lease["state"]["accepted"]
            assert int(lease["refunded"]) == rest * (int(lease["price"]) + int(lease["fee"]))
            # The killed provider pays for its silence, unless an approval was redeemed for it while the lease closed.
            penalty = int(lease["penalty"]) if lease["verdict"] is None else 0
            assert penalty in ((0, int(lease["price"])) if lease["provider"] == outcome["killed"] else (0,))
            earned[lease["provider"]] = earned.get(lease["provider"], 0) + int(lease["paid"]) - penalty
    parties = outcome["parties"]
    for name in ("hydro", "solar", "wind", "tide"):
        party = parties[name]
        assert int(party["after"]) - int(party["before"]) == earned.get(party["address"], 0)
    for client, job in zip(("alice", "bob"), outcome["jobs"][:2], strict=True):
        spent = int(parties[client]["before"]) - int(parties[client]["after"])
        assert spent == int(job["paid"]) + int(job["fees"]) - sum(int(lease["penalty"]) for lease in job["leases"])
    assert int(parties["operator"]["after"]) - int(parties["operator"]["before"]) == sum(
        int(job["fees"]) for job in outcome["jobs"] + outcome["replays"]
    )
