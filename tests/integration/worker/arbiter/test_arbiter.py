"""Disputes of real leases at a real market are ruled on by training again, as `gpumarket arbiter start` does it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey
from typer.testing import CliRunner

from contracts.api.access import Signer
from contracts.api.bodies import LeaseOut
from contracts.api.client import MarketClient
from contracts.api.problems import Code, Problem
from contracts.audits.cases import FAILED, Replayed
from contracts.audits.levels import CLOSED, OPEN
from contracts.audits.verification import Verification
from contracts.chain.arbiter import OperatorArbiter
from contracts.chain.devnet import devnet
from contracts.chain.events import Claimed, Resolved
from contracts.chain.lookup import lease_events, opened
from contracts.chain.sending.sender import Sender
from contracts.cli import main
from contracts.commitment import next_tip
from contracts.job.file import hash_file
from contracts.orders import Claim
from contracts.terms import Phase, Verdict
from contracts.types import from_hex, to_hex
from market.approver.auditing.own_replays import OwnReplays
from tests.support.devnet import TOKEN, Funded, pass_time
from tests.support.lying import claimed, lying
from tests.support.recipes import KEYED, SLOW
from tests.support.whole_market import Stage, StageOf, terminate, wait_for

pytestmark = pytest.mark.mostly_sqlite

CLOSED_HERE = CLOSED.model_copy(update={"recipes": (hash_file(SLOW).sha256,)})


def arbiter(stage: Stage, *options: str, code: int = 0) -> str:
    """What it says of the disputes that it finds."""
    command = ["arbiter", "start", "--devnet", "--once", "--market", stage.market.url, *options]
    done = CliRunner().invoke(main.app, command)
    assert done.exit_code == code, (done.exit_code, done.output, done.exception)
    return done.stdout


@contextmanager
def running(stage: Stage) -> Iterator["subprocess.Popen[bytes]"]:
    """The arbiter as a process of its own; its log goes to `home`/arbiter.log."""
    command = [str(Path(sys.executable).with_name("gpumarket")), "arbiter", "start", "--devnet", "--poll", "0.3"]
    with open(stage.home / "arbiter.log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--market", stage.market.url],
            env=os.environ | {"GPUMARKET_HOME": str(stage.home)},
            stdout=log,
            stderr=log,
        )
    stage.processes.append(process)
    yield process


def challenge(stage: Stage, lease: LeaseOut, k: int, ground: int, by: LocalAccount) -> str:
    """Returns the dispute's id."""
    opening = opened(stage.chain, lease.id)
    events = lease_events(stage.chain, lease.id, opening.at.block)
    roots = [root for event in events if isinstance(event, Claimed) for root in event.roots]
    call = stage.chain.challenge(opening.terms, stage.rules, opening.tip, roots, k, ground)
    Sender(stage.chain, by).send(call)
    dispute = stage.chain.dispute(lease.id)
    assert dispute is not None
    # Before that the market lets no arbiter read the job.
    wait_for("the market to see it", lambda: stage.market.lease(lease.id).state.phase == "challenged")
    return dispute.id


def resolved(stage: Stage, lease: LeaseOut) -> int:
    """The verdict with which the market's keeper has ended the dispute."""
    wait_for("its end", lambda: stage.chain.state(lease.id).phase is not Phase.CHALLENGED)
    events = lease_events(stage.chain, lease.id, opened(stage.chain, lease.id).at.block)
    return [event for event in events if isinstance(event, Resolved)][-1].verdict


@pytest.mark.long  # the demo convicts; a void is below
@pytest.mark.parametrize(("verification", "verdict"), [(OPEN, Verdict.VOID), (CLOSED_HERE, Verdict.FALSE)])
def test_a_lie_is_void_in_an_open_job_and_false_in_a_closed_one(
    stage_of: StageOf, funded: Funded, verification: Verification, verdict: Verdict
) -> None:
    stage = stage_of(window=600, timeout=900, verification=verification)
    (challenger,) = funded(1, free=50 * TOKEN)
    job = stage.submit(checkpoints=2)
    with lying(at=2), stage.agent(patience=0):
        lease = claimed(stage, job, 2)
    assert (
        arbiter(stage) == f"Arbiter {stage.rules.arbiter}, by its operator {operator(stage)}, for the market at "
        f"{stage.market.url}\nArbiter stopped.\n"
    )
    dispute = challenge(stage, lease, 2, 0, challenger)
    if verification is OPEN:
        said = arbiter(stage, "--dry-run")
        assert f"dispute {dispute}: checkpoint 2 of lease {lease.id}: would rule {verdict} {verdict.said}" in said
        assert OperatorArbiter(stage.chain, stage.rules.arbiter).verdict(dispute) == 0

    assert f": {verdict} {verdict.said}: 2 runs of the stretch gave 0x" in arbiter(stage)
    assert resolved(stage, lease) == verdict
    assert stage.free(challenger) == 50 * TOKEN + (verdict is Verdict.FALSE) * ((20 * TOKEN - 1) // 5)
    assert list((stage.home / "arbiter").iterdir()) == []


def test_a_state_from_which_the_recipe_only_fails(stage_of: StageOf, funded: Funded, tmp_path: Path) -> None:
    """Else one lie that is not drawn would be the last that anybody can look at: all that follows could be made up."""
    stage = stage_of(window=600, timeout=900, verification=OPEN)
    (challenger,) = funded(1, free=50 * TOKEN)
    job = stage.submit(checkpoints=3)
    with lying(at=2, no_number="model/weight"), stage.agent(patience=0):
        lease = claimed(stage, job, 3)
    (third,) = [one for one in stage.market.checkpoints(job) if one.checkpoint.index == 3]
    own = OwnReplays(stage.chain.settings, stage.market.url, stage.approver, PrivateKey.generate(), tmp_path)
    answer = wait_for("the approver's own replay", lambda: own.answer(third, 300))
    own.close()
    assert answer == Replayed("differs", FAILED)

    challenge(stage, lease, 3, 0, challenger)
    said = arbiter(stage)
    assert ": 3 void: in 2 runs of the stretch the recipe fails, and from the job's start it does not" in said
    assert resolved(stage, lease) == Verdict.VOID


@pytest.mark.long
def test_a_recipe_that_looks_where_it_is_is_not_reproducible(stage_of: StageOf, funded: Funded) -> None:
    stage = stage_of(window=600, timeout=900)
    (challenger,) = funded(1, free=50 * TOKEN)
    job = stage.submit(checkpoints=1, source=KEYED, recipe="Keyed")
    with stage.agent(patience=0):
        lease = claimed(stage, job, 1)
    challenge(stage, lease, 1, 0, challenger)
    assert "4 unreproducible: runs of the stretch differ from each other: 0x" in arbiter(stage)
    assert resolved(stage, lease) == Verdict.UNREPRODUCIBLE
    assert stage.free(challenger) == 50 * TOKEN - 1


def test_a_signed_claim_that_no_market_lists_convicts_nobody(stage_of: StageOf, funded: Funded) -> None:
    """Its maker may have handed in another one in its place."""
    stage = stage_of(window=2_000, timeout=3_000)
    (challenger,) = funded(1, free=50 * TOKEN)
    job = stage.submit(checkpoints=1, pause=60.0)
    with stage.agent():
        (lease,) = wait_for("a lease", lambda: stage.leases(job))
        opening, root = opened(stage.chain, lease.id), "0x" + "77" * 32
        claim = Claim(lease=lease.id, n=1, tip=to_hex(next_tip(from_hex(opening.tip), from_hex(root))))
        signature = claim.sign(stage.chain.domain, stage.provider)
        call = stage.chain.challenge_signed(opening.terms, stage.rules, opening.tip, [], [root], 1, signature, 1)
        Sender(stage.chain, challenger).send(call)
        pass_time(stage.chain, stage.rules.arbiter_timeout // 2)
        assert "silent: a signed Claim, not claimed on chain: nobody has claimed checkpoint 1" in arbiter(stage, code=4)
        assert stage.chain.state(lease.id).phase is Phase.CHALLENGED


def operator(stage: Stage) -> str | None:
    return OperatorArbiter(stage.chain, stage.rules.arbiter).operator()


def may_read(stage: Stage, job: str) -> bool:
    """Whether the arbiter's operator gets a file of the job."""
    signer = Signer(devnet.accounts()[0], stage.chain.domain)
    with MarketClient(stage.market.url, signer=signer) as market:
        try:
            market.get_blob(stage.job(job).spec.files["recipe.py"], stage.home / "copy", job=job)
        except Problem as problem:
            assert problem.code == Code.NOT_A_READER
            return False
    return True


def test_false_accusations_and_withheld_bytes(stage_of: StageOf, funded: Funded) -> None:
    stage = stage_of(window=2_000, timeout=3_000)
    (challenger,) = funded(1, free=50 * TOKEN)
    job = stage.submit(checkpoints=2)
    with stage.agent(patience=0):
        lease = claimed(stage, job, 2)

    assert not may_read(stage, job)
    challenge(stage, lease, 1, 0, challenger)
    wait_for("the market to see it", lambda: may_read(stage, job))
    with running(stage) as process:
        assert resolved(stage, lease) == Verdict.TRUE
        assert terminate(process, 60) == 0
    log = (stage.home / "arbiter.log").read_text()
    assert "2 runs of the stretch gave the claimed root" in log and "Arbiter stopped." in log
    wait_for("the market to see its end", lambda: not may_read(stage, job))
    challenge(stage, lease, 2, 1, challenger)
    assert "1 true: the state of checkpoint 2 is there, and is what was claimed" in arbiter(stage)
    assert resolved(stage, lease) == Verdict.TRUE
    assert stage.free(challenger) < 50 * TOKEN

    challenge(stage, lease, 2, 1, challenger)
    (record,) = (one.checkpoint for one in stage.market.checkpoints(job) if one.checkpoint.index == 2)
    for blob in (stage.home / "blobs").rglob(record.state.sha256.removeprefix("0x")):
        blob.unlink()
    assert "silent: the claimed state can't be had" in arbiter(stage, code=4)
    pass_time(stage.chain, stage.rules.arbiter_timeout // 2)
    stage.stop_market()
    assert "silent" in arbiter(stage, code=4)  # nobody answers, which says nothing about the provider
    stage.start_market()
    assert "2 false: the claimed state can't be had" in arbiter(stage)
    assert resolved(stage, lease) == Verdict.FALSE
