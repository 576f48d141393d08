"""A lease's files and the state to go on from: nothing is used that the chain's tip does not commit to."""

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from contracts.commitment import start_tip
from contracts.errors import UserError
from contracts.job.file import hash_file
from contracts.job.spec import FileRef
from contracts.job.state_kinds import METADATA
from contracts.statefile import file_state_root
from contracts.types import ZERO_HASH, to_hex
from tests.support.worker_leases import (
    RULES,
    BlobMarket,
    make_bid,
    make_chain,
    make_folder,
    make_record,
    make_spec,
    write_state,
)
from worker.lease.folder import Job, LeaseFolder
from worker.lease.inputs import BadStartState, NoStartState, fetch_files, fetch_start_state, fetch_state, is_state
from worker.training.failures import Failure

SPEC = make_spec()
JOB = Job(bid=make_bid(SPEC), spec=SPEC, rules=RULES)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path / "home"))


@pytest.fixture
def states(tmp_path: Path) -> Path:
    return tmp_path / "states"


def lease_from(index: int, tip: str) -> LeaseFolder:
    """A lease that starts after checkpoint `index`."""
    return make_folder(SPEC, start=index, tip=tip, base_tip=tip)


def fetch(market: BlobMarket, folder: LeaseFolder, job: Job = JOB) -> None:
    client: Any = market
    fetch_start_state(client, folder, job, disk_mb=100)


@pytest.mark.parametrize("index", [1, 2, 3])
def test_the_state_that_the_tip_commits_to_is_taken(states: Path, index: int) -> None:
    records = make_chain(SPEC, 3, states)
    folder = lease_from(index, records[index - 1].tip)
    fetch(BlobMarket(records, states), folder)
    assert hash_file(folder.start_state) == records[index - 1].state


def test_a_job_that_starts_afresh_needs_none(states: Path) -> None:
    folder = lease_from(0, to_hex(start_tip(SPEC.job_hash())))
    fetch(BlobMarket([], states), folder)
    assert not folder.start_state.exists()


def test_of_several_records_the_one_with_the_tip_is_taken(states: Path) -> None:
    """Another provider's, that was rejected, stands beside it."""
    records = make_chain(SPEC, 2, states)
    other = make_record(SPEC, 2, records[0].tip, write_state(states / "other", 99))
    folder = lease_from(2, records[1].tip)
    fetch(BlobMarket([other, *records], states), folder)
    assert hash_file(folder.start_state) == records[1].state


@pytest.mark.parametrize(
    "lie",
    [
        {"state_root": "0x" + "ee" * 32},
        {"trace_root": "0x" + "ee" * 32},
        {"numerics": {"torch": "1.0"}},
        {"index": 1},
    ],
)
def test_a_record_that_only_says_the_tip_is_not_taken(states: Path, lie: dict[str, Any]) -> None:
    records = make_chain(SPEC, 2, states)
    forged = records[1].model_copy(update=lie)
    with pytest.raises(NoStartState, match=records[1].tip):
        fetch(BlobMarket([records[0], forged], states), lease_from(2, records[1].tip))


def test_a_record_without_the_one_before_it_proves_nothing(states: Path) -> None:
    records = make_chain(SPEC, 3, states)
    with pytest.raises(NoStartState):
        fetch(BlobMarket([records[0], records[2]], states), lease_from(3, records[2].tip))


def test_a_blob_that_is_not_the_state_is_not_kept(states: Path, tmp_path: Path) -> None:
    records = make_chain(SPEC, 1, states)
    market = BlobMarket(records, states)
    market.lies[records[0].state.sha256] = write_state(tmp_path / "evil", 666).read_bytes()
    folder = lease_from(1, records[0].tip)
    with pytest.raises(Failure, match="has root"):
        fetch(market, folder)
    assert not folder.start_state.exists()


def test_a_state_that_nobody_can_load_is_the_files_fault(states: Path, tmp_path: Path) -> None:
    """Its root is right. Neither fetched nor found on disk it gets to the recipe."""
    file = write_state(states / "1", 1)
    save_file(load_file(file), file, {METADATA: '{"nothing": "int"}'})
    record = make_record(SPEC, 1, to_hex(start_tip(SPEC.job_hash())), file)
    assert to_hex(file_state_root(file)) == record.state_root
    folder = lease_from(1, record.tip)
    for _ in range(2):
        with pytest.raises(BadStartState, match="nobody can go on from checkpoint 1: the state contradicts itself"):
            fetch(BlobMarket([record], states), folder)
        assert not folder.start_state.exists()
        shutil.copy(file, folder.start_state)


def test_a_state_whose_kinds_were_swapped_is_not_the_one_that_was_accepted(states: Path) -> None:
    """Whoever passes it on could: a market, or a provider that uploads another file of the same tensors."""
    (record,) = make_chain(SPEC, 1, states)
    file, folder = states / "1", lease_from(1, record.tip)
    save_file(load_file(file), file, {METADATA: '{"weights": "array"}'})
    forged = record.model_copy(update={"state": hash_file(file)})
    for _ in range(2):
        with pytest.raises(BadStartState, match="checkpoint 1: it has root 0x"):
            fetch(BlobMarket([forged], states), folder)
        assert not folder.start_state.exists()
        shutil.copy(file, folder.start_state)


def test_a_state_that_is_there_already_is_not_fetched_again(states: Path) -> None:
    records = make_chain(SPEC, 1, states)
    nobody: Any = None
    fetch_state(nobody, records[0], states / "1", job=ZERO_HASH)
    assert is_state(states / "1", records[0])
    write_state(states / "1", 2)
    assert not is_state(states / "1", records[0])


def test_a_follow_up_job_goes_on_from_the_earlier_one(states: Path) -> None:
    earlier = make_spec(seed=1)
    records = make_chain(earlier, 5, states)
    market: Any = BlobMarket(records, states)
    job = SimpleNamespace(id="0x" + "01" * 32, spec=earlier, bid=make_bid(earlier))
    market.jobs = lambda tip: [job] if tip == records[4].tip else []
    market.job = {job.id: job}.__getitem__
    bid = make_bid(SPEC, start_tip=records[4].tip)
    folder = make_folder(SPEC, tip=records[4].tip, base_tip=records[4].tip)
    fetch(market, folder, Job(bid=bid, spec=SPEC, rules=RULES))
    assert hash_file(folder.start_state) == records[4].state


def test_a_state_that_is_too_big_is_not_fetched(states: Path) -> None:
    records = make_chain(SPEC, 1, states)
    big = records[0].model_copy(update={"state": FileRef(sha256=records[0].state.sha256, size=1 << 40)})
    with pytest.raises(UserError, match="MB are allowed"):
        fetch(BlobMarket([big], states), lease_from(1, records[0].tip))


class Files:
    """Gives out blobs by their hash."""

    def __init__(self, *contents: bytes) -> None:
        self.asked: list[str] = []
        self._blobs = {FileRef(sha256=sha, size=len(data)): data for data in contents for sha in [sha256(data)]}

    def get_blob(self, ref: FileRef, target: Path, *, job: str) -> Path:
        self.asked.append(target.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self._blobs[ref])
        return target


def sha256(data: bytes) -> str:
    return "0x" + hashlib.sha256(data).hexdigest()


def no_web(ref: FileRef, target: Path) -> None:
    raise AssertionError(f"{ref} has no url")


def spec_of(**files: bytes) -> Any:
    refs = {name.replace("__", "/"): FileRef(sha256=sha256(data), size=len(data)) for name, data in files.items()}
    return SimpleNamespace(files=refs, sealed=False)


def test_files_land_at_their_paths_and_only_once(tmp_path: Path) -> None:
    spec, market = spec_of(recipe=b"code", data__train=b"numbers"), Files(b"code", b"numbers")
    client: Any = market
    fetch_files(client, no_web, spec, tmp_path, job=ZERO_HASH)
    fetch_files(client, no_web, spec, tmp_path, job=ZERO_HASH)
    assert (tmp_path / "data" / "train").read_bytes() == b"numbers"
    assert market.asked == ["recipe", "train"]


def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    spec, market = spec_of(recipe=b"code"), Files(b"code")
    (tmp_path / "recipe").write_bytes(b"kode")
    client: Any = market
    fetch_files(client, no_web, spec, tmp_path, job=ZERO_HASH)
    assert (tmp_path / "recipe").read_bytes() == b"code"


def test_a_path_may_not_lead_out_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "link").symlink_to(tmp_path)
    client: Any = Files(b"code")
    with pytest.raises(UserError, match="outside its folder"):
        fetch_files(client, no_web, spec_of(link__evil=b"code"), tmp_path / "job", job=ZERO_HASH)
    with pytest.raises(ValueError, match="not a plain relative path"):
        evil: Any = SimpleNamespace(files={"../evil": FileRef(sha256=sha256(b"code"), size=4)})
        fetch_files(client, no_web, evil, tmp_path, job=ZERO_HASH)
