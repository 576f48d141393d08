"""What the market says of a lease counts only as far as the chain proves it."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from contracts.api.bodies import AskResources, LeaseOut
from contracts.chain.events import Opened, Place
from contracts.chain.lookup import MarketLied, OpenedRange
from contracts.errors import UserError
from contracts.job.spec import Resources
from contracts.terms import Flag, Phase, StateWord
from tests.support.worker_leases import DOMAIN, RULES, lease_out, make_bid, make_folder, make_spec, make_terms
from worker.lease import discovery
from worker.lease.discovery import Unfit, check_fit, lease_file, verified_job
from worker.lease.folder import LeaseFolder, Store

SPEC = make_spec()
BID = make_bid(SPEC)
TERMS = make_terms(BID)
HAVE = AskResources(
    device="RTX 4090", gpus=1, vram_mb=24_000, memory_mb=32_000, environments=("torch-2.13",), sandbox="bubblewrap",
    region="eu-de",
)  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))


def ask(said: LeaseOut) -> Any:
    folder: LeaseFolder = make_folder(SPEC)
    chain: Any = SimpleNamespace(domain=DOMAIN)
    market: Any = SimpleNamespace(lease=lambda id: said)
    return verified_job(chain, market, folder)


def test_the_truth_is_taken() -> None:
    job = ask(lease_out(SPEC, BID, TERMS))
    assert (job.bid, job.spec, job.rules) == (BID, SPEC, RULES)


@pytest.mark.parametrize(
    ("lie", "what"),
    [
        ({"bid": BID.model_copy(update={"units": 1})}, "the Bid"),
        ({"bid": BID.model_copy(update={"max_price": 11})}, "the Bid"),
        ({"spec": make_spec(seed=8)}, "the job"),
        ({"spec": make_spec(config={"evil": True})}, "the job"),
        ({"rules": RULES.model_copy(update={"checkpoint_timeout": 101})}, "the rules"),
        ({"rules": RULES.model_copy(update={"arbiter": BID.client})}, "the rules"),
        ({"id": "0x" + "ab" * 32}, "the lease's id"),
        ({"job": "0x" + "ab" * 32}, "the job's id"),
    ],
)
def test_each_lie_is_caught(lie: dict[str, Any], what: str) -> None:
    with pytest.raises(MarketLied, match=what):
        ask(lease_out(SPEC, BID, TERMS, **lie))


def test_a_bid_for_more_checkpoints_than_its_job_has_is_refused() -> None:
    """The client itself may have signed that; it can't be worked off."""
    bid = make_bid(SPEC, checkpoints=9)
    terms = make_terms(bid)
    folder: Any = SimpleNamespace(lease=terms.lease, file=make_folder(SPEC).file)
    folder.file = folder.file.model_copy(update={"nums": terms.nums, "parties": terms.parties})
    chain: Any = SimpleNamespace(domain=DOMAIN)
    market: Any = SimpleNamespace(lease=lambda id: lease_out(SPEC, bid, terms))
    with pytest.raises(MarketLied, match="9 checkpoints"):
        verified_job(chain, market, folder)


def test_an_event_must_prove_its_lease() -> None:
    event = make_folder(SPEC).file.as_event("0x" + "ab" * 32)
    with pytest.raises(UserError, match="have the id"):
        lease_file(event, StateWord(Phase.ACTIVE, 0, 0, 0, 1000, 7))


def test_a_lost_folder_goes_on_from_what_is_claimed_on_chain() -> None:
    event = make_folder(SPEC).file.as_event(TERMS.lease)
    file = lease_file(event, StateWord(Phase.ACTIVE, 1, 1, 3, 1000, 7))
    assert (file.base, file.made, file.accepted, file.settled, file.goal) == (3, 3, 1, 1, "training")
    assert file.base_tip == "0x" + "00" * 19 + "07"
    assert lease_file(event, StateWord(Phase.ACTIVE, 1, 1, 5, 1000, 7)).goal == "finished"


def test_while_challenged_the_chain_has_the_tip_of_what_is_accepted() -> None:
    event = make_folder(SPEC).file.as_event(TERMS.lease)
    assert lease_file(event, StateWord(Phase.CHALLENGED | Flag.MORE, 1, 1, 3, 1000, 7)).base == 1


@pytest.mark.parametrize(
    ("needs", "problem"),
    [
        ({"gpus": 2}, "2 GPUs; this machine offers 1"),
        ({"gpus": 1, "vram_mb": 40_000}, "40000 MB of GPU memory"),
        ({"memory_mb": 64_000}, "64000 MB of memory"),
        ({"devices": ("H100",)}, "one of H100"),
        ({"regions": ("eu-fr", "us")}, "in eu-fr or us; this one's is 'eu-de'"),
        ({"units_per_hour": 1_001}, "1001 work units an hour; this machine offers 1000"),
    ],
)
def test_what_this_machine_has_not_is_refused(needs: dict[str, Any], problem: str) -> None:
    with pytest.raises(Unfit, match=problem):
        check_fit(make_spec(resources=Resources(**needs)), HAVE, 1_000, disk_mb=100)


def test_an_environment_that_is_not_here_is_refused() -> None:
    with pytest.raises(UserError, match=r"torch-9\.9"):
        check_fit(make_spec(environment="torch-9.9"), HAVE, 1_000, disk_mb=100)


def test_what_fits_is_not_refused() -> None:
    asked = Resources(
        gpus=1,
        vram_mb=24_000,
        memory_mb=1,
        devices=("RTX 4090",),
        regions=("us", "eu-de"),
        tier=3,
        units_per_hour=1_000,
    )
    check_fit(make_spec(resources=asked), HAVE, 1_000, 100)  # its tier is not the machine's to judge


# ------------------------------------------------------------------ leases on chain


class Opening:
    """A chain with `newest` blocks, in which leases of this provider were opened."""

    def __init__(self) -> None:
        self.newest, self.events = 10, list[Opened]()
        self.settings, self.w3 = SimpleNamespace(deploy_block=1), SimpleNamespace(eth=self)

    @property
    def block_number(self) -> int:
        return self.newest

    def opens(self, nonce: int, block: int) -> str:
        terms = make_terms(make_bid(SPEC, nonce=nonce))
        place = Place(block, "", 0, "", 1000)
        ask = f"0x{nonce:064x}"
        self.events.append(Opened(place, terms.lease, terms.provider, BID.client, ask, terms, "0x" + "00" * 20))
        return terms.lease

    def opened_by(self, _: Any, provider: str, first: int, last: int, watch: Any = None) -> Iterator[OpenedRange]:
        yield OpenedRange(last, [event for event in self.events if first <= event.at.block <= last])

    def state(self, lease: str) -> StateWord:
        return StateWord(Phase.ACTIVE, 0, 0, 0, 1000, 7)


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Any:
    chain = Opening()
    monkeypatch.setattr(discovery, "opened_by", chain.opened_by)
    return chain


def test_a_lease_that_nobody_can_judge_now_keeps_no_other_from_being_found(chain: Any) -> None:
    bad, good = chain.opens(1, 5), chain.opens(2, 6)
    sick = {f"0x{1:064x}"}

    def is_ours(ask: str) -> bool:
        if ask in sick:
            raise UserError("the market has trouble with this Ask")
        return True

    def found() -> list[str]:
        return [folder.lease for folder in discovery.discover(chain, TERMS.provider, Store("rig"), is_ours=is_ours)]

    with capture_logs() as logs:
        assert found() == [good] and found() == []
    (told,) = [one for one in logs if one["event"] == "lease.skipped"]
    assert told["lease"] == bad and "trouble with this Ask" in told["problem"]
    assert Store("rig").read_state()["followed"] == 10
    chain.newest = 10_000  # long after the blocks that are looked at once more
    later = chain.opens(3, 9_999)
    assert found() == [later]
    sick.clear()
    assert found() == [bad]
    assert Store("rig").read_state()["skipped"] == {} and found() == []


def test_neither_does_a_folder_that_can_not_be_read(chain: Any) -> None:
    folder = make_folder(SPEC)
    (folder.folder / "lease.json").write_text("{")
    place = Place(5, "", 0, "", 1000)
    chain.events.append(Opened(place, TERMS.lease, TERMS.provider, BID.client, "0x", TERMS, "0x" + "00" * 20))
    good = chain.opens(2, 6)
    assert [one.lease for one in discovery.discover(chain, TERMS.provider, Store("rig"))] == [good]
