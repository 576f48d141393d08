"""The agent's files: what is written is there after any crash, and nothing else is."""

import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from contracts.errors import UserError
from contracts.job.provider_wants import Wants
from tests.support.worker_leases import OFFER, add_checkpoints, lease_tools, make_folder, make_spec, write_state
from worker.files import write_atomically
from worker.lease.folder import LEASE_FILE, LeaseFolder, Store
from worker.lease.inputs import BadStartState
from worker.lease.run import LeaseRun


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def folder() -> LeaseFolder:
    return make_folder()


def again(folder: LeaseFolder) -> LeaseFolder:
    """As a restarted agent finds it."""
    found = Store("rig").load(folder.lease)
    assert found is not None
    return found


def test_a_restart_finds_the_lease_as_it_was(folder: LeaseFolder) -> None:
    add_checkpoints(folder, make_spec(), 3)
    folder.update(reported=2, accepted=1, goal="releasing", reason="the provider stops")
    assert again(folder).file == folder.file
    assert again(folder).file.terms.lease == folder.lease
    assert again(folder).tip(2) == folder.checkpoint(2).tip


def test_a_checkpoint_is_made_when_its_record_is_there(folder: LeaseFolder) -> None:
    records = add_checkpoints(folder, make_spec(), 2)
    assert folder.file.made == 2
    assert folder.roots(0, 2) == [record.root for record in records]
    assert folder.knows_tip(2) and not folder.knows_tip(3)


def test_a_write_that_fails_leaves_the_old_file(folder: LeaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = folder.file
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.update(reported=4)
    assert folder.file == before == again(folder).file


def test_a_damaged_lease_file_says_what_to_do(folder: LeaseFolder) -> None:
    write_atomically(folder.folder / "lease.json", b"{")
    with pytest.raises(UserError, match=r"can't read .*lease\.json") as caught:
        again(folder)
    assert caught.value.hint is not None


def test_a_restart_carries_on_from_a_base_after_the_start(home: Path) -> None:
    folder = make_folder(start=2, base=3, base_tip="0x" + "33" * 20, made=3, reported=3)
    assert folder.tip(2) == folder.file.tip
    assert folder.tip(3) == "0x" + "33" * 20
    assert folder.state_path(3) == folder.start_state
    assert not folder.knows_tip(1)


def test_only_the_first_reason_to_release_counts(folder: LeaseFolder) -> None:
    folder.release("one", since=5)
    folder.release("two", since=6)
    assert (folder.file.reason, folder.file.releasing_since) == ("one", 5)


def test_a_failure_from_before_there_were_kinds_is_one_still(folder: LeaseFolder) -> None:
    folder.release("out of memory", since=1.0)
    path = folder.folder / LEASE_FILE
    old = json.loads(path.read_text())
    del old["stops"]
    path.write_text(json.dumps(old | {"failed": True}))
    assert again(folder).file.stops == "failed"
    path.write_text(json.dumps(old | {"failed": False}))
    assert again(folder).file.stops == "release"


def test_old_states_go_when_the_market_and_the_chain_have_them(folder: LeaseFolder) -> None:
    add_checkpoints(folder, make_spec(), 4)
    folder.update(reported=4, accepted=2)
    folder.drop_old_states()
    assert [folder.state_path(index).exists() for index in (1, 2, 3, 4)] == [False, False, True, True]
    folder.update(accepted=4)
    folder.drop_old_states()
    assert [folder.state_path(index).exists() for index in (3, 4)] == [False, True]  # the newest is to resume from
    assert [folder.checkpoint(index).index for index in (1, 2, 3, 4)] == [1, 2, 3, 4]


def test_a_lease_that_is_over_keeps_traces_then_its_totals(folder: LeaseFolder) -> None:
    add_checkpoints(folder, make_spec(), 1)
    trace = folder.work_folder / "checkpoint-00001.trace"
    trace.write_bytes(bytes(32))
    folder.update(goal="over", settled=1, accepted=1)
    folder.drop_bulk()
    assert trace.exists() and not folder.state_path(1).exists() and not folder.job_folder.exists()

    store = Store("rig")
    store.collect(folder)
    assert store.load(folder.lease) is None and store.is_over(folder.lease)
    assert [(lease, file.earned) for lease, file in store.ended()] == [(folder.lease, 10)]


def test_a_damaged_file_of_a_lease_that_is_over_hides_no_other(folder: LeaseFolder) -> None:
    folder.update(goal="over", settled=1, accepted=1)
    store = Store("rig")
    store.collect(folder)
    over = store.folder / "over"
    broken = {"0x01.json": b"", "0x02.json": b"{}", "0x03.json": b"\xff\x00", "0x04.json": b'["a"]'}
    for name, data in broken.items():
        (over / name).write_bytes(data)
    (over / "0x05.json").mkdir()
    with capture_logs() as logs:
        assert [lease for lease, _ in store.ended()] == [folder.lease]
    assert [Path(line["path"]).name for line in logs] == [*broken, "0x05.json"]
    assert all(line["problem"] and "move it away" in line["hint"] for line in logs)
    assert logs[1]["problem"] == "provider: Field required"


def test_no_state_outlives_a_lease(folder: LeaseFolder) -> None:
    """Neither what a killed process was writing, nor the states of first steps: a sealed job's are plain, too."""
    add_checkpoints(folder, make_spec(), 1)
    for place in ("rehearsal/once", "work/out", "work/scratch/readable"):
        write_state(folder.folder / place / "checkpoint-00001.safetensors", 1.0)
    write_state(folder.work_folder / "checkpoint-00002.safetensors.partial", 1.0)
    folder.drop_bulk()
    assert not [path for path in folder.folder.rglob("*") if ".safetensors" in path.name]


def test_a_lease_that_goes_on_begins_without_old_first_steps(folder: LeaseFolder) -> None:
    left = write_state(folder.folder / "rehearsal" / "once" / "checkpoint-00001.safetensors", 1.0)
    folder.update(goal="over")
    offer = OFFER.model_copy(update={"market_url": "http://127.0.0.1:9"})  # where nobody listens
    run = LeaseRun(folder, lease_tools(settings=offer), Wants())
    run.start()
    run.close()
    assert not left.exists()


def test_a_state_that_nobody_can_go_on_from_is_not_the_recipes_failure(folder: LeaseFolder) -> None:
    run = LeaseRun(folder, lease_tools(settings=OFFER), Wants())
    run.training.ended = BadStartState("nobody can go on from checkpoint 1: it is a joke")
    run._heed_training()
    assert (folder.file.goal, folder.file.stops, run.refused) == ("releasing", "release", True)
    assert "state: nobody can go on from checkpoint 1: it is a joke" in folder.file.reason


def test_small_facts_are_kept_side_by_side() -> None:
    store = Store("rig")
    assert store.read_state() == {}
    store.write_state(followed=7)
    store.write_state(ask_valid_until=9)
    assert Store("rig").read_state() == {"followed": 7, "ask_valid_until": 9}
