"""`job reprice` signs nothing for work that is, or may yet be, paid under the Bid before: the chain says what is."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from contracts.api.bodies import JobOut, JobStatus
from contracts.chain.client import Chain, connect
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.settings import write_config
from contracts.terms import Phase
from contracts.wallet import keys
from market.client import replacing
from market.client.cli import common
from market.client.cli.job import app
from market.client.replacing import OldBid
from tests.support.devnet import TOKEN, pass_time, rpc
from tests.support.stepped_market import Lives, clear, one_lease

pytestmark = pytest.mark.mostly_sqlite

Run = Callable[..., str]
TERMS = ("--max-price", "3", "--yes")


@pytest.fixture
def run(market: Lives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command of the client's; what it prints. The market is as late as the test leaves it."""
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    monkeypatch.setenv("GPUMARKET_PASSWORD", "for tests")
    monkeypatch.setenv("GPUMARKET_MARKET_URL", market.api.url)
    write_config(tmp_path / "config.toml", market.chain.settings, "For a test.")
    keys.save("me", market.client, "for tests", scrypt_n=2)
    monkeypatch.setattr(common, "MarketClient", lambda url: contextlib.nullcontext(market.reader))

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments)
        if done.exception:
            raise done.exception
        return done.stdout

    return run


def given_back(market: Lives, job: JobOut, made: int) -> str:
    """Its lease ends with so many checkpoints, and is to be continued. Returns the tip."""
    lease = market.lease_of(job)
    tip = market.make(lease, made)
    market.say(lease, "release", lease.start + made)
    market.approver.answer_releases()
    market.redeem(lease)
    assert market.state(lease).phase is Phase.CLOSED
    return tip


def send(market: Lives, call: Any) -> None:
    Sender(market.chain, market.client).send(call)


def signed(market: Lives) -> int:
    return len(list(market.api.jobs()))


def is_seen(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    """The market follows the chain whenever it is asked for a job."""
    honest = market.reader.job

    def job(id: str) -> JobOut:
        market.follow()
        return honest(id)

    monkeypatch.setattr(market.reader, "job", job)


def test_a_market_that_is_late_has_nobody_pay_twice(market: Lives, run: Run) -> None:
    """It has not seen yet that the job has a lease, and that the client has raised its page since."""
    job = market.post_bid()
    market.post_ask(market.providers[0])
    assert clear(market.clearing) is not None
    with pytest.raises(UserError, match="the market shows no lease of job"):
        run("reprice", job.id, *TERMS)
    send(market, market.chain.raise_page(1))
    assert market.reader.job(job.id).status is JobStatus.PENDING
    with pytest.raises(UserError, match=r"lease 0x\w+ of job .* was opened on chain, and the market did not show it"):
        run("reprice", job.id, *TERMS)
    assert signed(market) == 1


@pytest.mark.parametrize("command", ["reprice", "extend"])
def test_a_lease_that_goes_on_from_the_one_that_is_shown(
    market: Lives, run: Run, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = one_lease(market)
    given_back(market, job, 1)
    market.post_ask(market.providers[1])
    assert clear(market.clearing) is not None
    told = market.reader.job(job.id)
    assert (told.status, len(told.leases)) == (JobStatus.PENDING, 1)
    if command == "extend":
        lie = told.model_copy(update={"status": JobStatus.CANCELLED})
        monkeypatch.setattr(market.reader, "job", lambda id: lie)
    with pytest.raises(UserError, match="was opened on chain, and the market did not show it"):
        run(command, job.id, *TERMS)
    assert signed(market) == 1


def test_another_bid_goes_on_from_what_the_chain_has_accepted(
    market: Lives, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = one_lease(market)
    tip = given_back(market, job, 2)
    head = market.chain.w3.eth.block_number
    offer = json.loads(run("reprice", job.id, "--max-price", "3", "--dry-run", "-o", "json"))
    assert (offer["bid"]["startTip"], offer["bid"]["checkpoints"]) == (tip, 2)
    assert (market.chain.w3.eth.block_number, signed(market)) == (head, 1)
    is_seen(market, monkeypatch)
    anew = JobOut.model_validate_json(run("reprice", job.id, *TERMS, "-o", "json"))
    assert (anew.bid.start_tip, anew.bid.max_price, anew.spec.start_step) == (tip, 3 * TOKEN, job.spec.step_of(2))
    assert market.state(market.lease_of(job)).phase is Phase.NONE
    # Given again, as by somebody to whom the answer was lost, it makes no third.
    with pytest.raises(
        UserError, match=rf"job {anew.id[:12]} \(pending, 0 checkpoints accepted\) goes on with job"
    ) as two:
        run("reprice", job.id, *TERMS)
    assert f"gpumarket job reprice {anew.id[:12]}" in str(two.value.hint) and signed(market) == 2
    third = JobOut.model_validate_json(run("reprice", anew.id, "--max-price", "4", "--yes", "-o", "json"))
    assert (third.bid.start_tip, third.bid.max_price, third.bid.checkpoints) == (tip, 4 * TOKEN, 2)
    # If none of those is left, the first may be gone on with once more.
    run("cancel", third.id, "--yes")
    market.follow()
    assert JobOut.model_validate_json(run("reprice", job.id, *TERMS, "-o", "json")).bid.start_tip == tip


def said(job: JobOut, status: JobStatus, accepted: int, leases: int) -> JobOut:
    return job.model_copy(update={"status": status, "accepted": accepted, "leases": job.leases[:leases]})


@pytest.mark.parametrize(
    ("status", "accepted", "leases", "says"),
    [
        (JobStatus.CANCELLED, 1, 1, "of job .* 2 checkpoints are accepted on chain, and the market said 1"),
        pytest.param(
            JobStatus.CANCELLED, 0, 0, "was opened on chain, and the market did not show it", marks=pytest.mark.long
        ),
        (JobStatus.EXPIRED, 2, 0, "was opened on chain, and the market did not show it"),
        pytest.param(JobStatus.PENDING, 1, 1, "of job .* 2 checkpoints are accepted on chain", marks=pytest.mark.long),
    ],
)
def test_what_a_market_hides_is_found(
    market: Lives, run: Run, status: JobStatus, accepted: int, leases: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = one_lease(market)
    given_back(market, job, 2)
    send(market, market.chain.end(market.terms(market.lease_of(job))))
    send(market, market.chain.raise_page(1))
    lie = said(market.reader.job(job.id), status, accepted, leases)
    monkeypatch.setattr(market.reader, "job", lambda id: lie)
    with pytest.raises(UserError, match=says):
        run("reprice", job.id, *TERMS)
    assert signed(market) == 1


def test_a_lease_that_only_the_market_knows(market: Lives) -> None:
    """As with a node that lags behind the market."""
    job = one_lease(market)
    given_back(market, job, 0)
    send(market, market.chain.end(market.terms(market.lease_of(job))))
    told = market.reader.job(job.id)
    more = told.leases[0].model_copy(update={"id": "0x" + "77" * 32})
    with pytest.raises(UserError, match=r"the market shows lease 0x7777\w+ of job .*, which is not on chain"):
        OldBid(market.chain, told.model_copy(update={"leases": [*told.leases, more]})).look()


@pytest.mark.parametrize(
    ("status", "accepted", "leases"),
    [
        (JobStatus.DONE, 4, 2),  # all of it
        pytest.param(JobStatus.CANCELLED, 2, 2, marks=pytest.mark.long),
        (JobStatus.CANCELLED, 1, 2),  # a lease that made nothing may still make something
        pytest.param(JobStatus.RUNNING, 1, 2, marks=pytest.mark.long),
        (JobStatus.EXPIRED, 2, 1),
        pytest.param(JobStatus.FAILED, 1, 1, marks=pytest.mark.long),
    ],
)
def test_a_job_of_which_the_market_now_says_more_is_not_signed_again(
    market: Lives, run: Run, status: JobStatus, accepted: int, leases: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain does not, but may have changed just then."""
    job = one_lease(market)
    given_back(market, job, 1)
    told = market.reader.job(job.id)
    twice = told.model_copy(update={"leases": told.leases * 2})
    answers = iter([told, said(twice, status, accepted, leases)])
    monkeypatch.setattr(market.reader, "job", lambda id: next(answers))
    with pytest.raises(UserError, match="was opened before it was cancelled"):
        run("reprice", job.id, *TERMS)
    assert signed(market) == 1


def careful(market: Lives, blocks: int) -> Chain:
    """The chain as somebody sees it who waits for so many blocks."""
    changes = {"confirmations_base": blocks, "confirmations_max": blocks}
    return connect(market.chain.settings.model_copy(update=changes))


class Miner:
    """Makes a block whenever a command says what it waits for."""

    def __init__(self, chain: Chain) -> None:
        self.chain, self.told = chain, list[str]()

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        if what.startswith("waiting"):
            self.told.append(f"{what}: {done} of {total}")
            rpc(self.chain, "evm_mine")


def test_what_ended_the_bid_must_be_deep_enough(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing, "POLL_SECONDS", 0)
    chain, job = careful(market, 7), market.post_bid()
    watch = Miner(chain)
    send(market, chain.raise_page(1))
    raised = int(chain.w3.eth.block_number)
    reached = OldBid(chain, market.api.job(job.id)).wait_until_dead(watch)
    assert (reached.accepted, int(chain.w3.eth.block_number)) == (0, raised + 7)
    assert watch.told == [f"waiting for blocks on top of the Bid's end: {done} of 7" for done in range(7)]
    OldBid(chain, market.api.job(job.id)).wait_until_dead(watch)
    assert len(watch.told) == 7  # it is deep enough already
    monkeypatch.setattr(replacing, "FINAL_SECONDS", -1.0)
    later = careful(market, 8)
    with pytest.raises(UserError, match="is not 8 blocks deep in the chain yet"):
        OldBid(later, market.api.job(job.id)).wait_until_dead(watch)


def test_a_lease_must_have_been_there_for_its_end_to_count(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a block before its opening the chain has no state of it, as it has none of one that is over."""
    monkeypatch.setattr(replacing, "POLL_SECONDS", 0)
    job = one_lease(market)
    tip = given_back(market, job, 1)
    send(market, market.chain.end(market.terms(market.lease_of(job))))
    market.follow()
    ended, chain = int(market.chain.w3.eth.block_number), careful(market, 20)
    assert market.lease_of(job).opened_block > ended - 20
    reached = OldBid(chain, market.api.job(job.id)).wait_until_dead(Miner(chain))
    assert (reached, int(chain.w3.eth.block_number)) == ((1, tip), ended + 20)


def test_a_bid_whose_time_is_over_is_dead_when_its_lease_is(market: Lives) -> None:
    over = max(market.chain.now(), int(time.time())) + 1000  # the chain's newest block may be old
    job = one_lease(market, valid_until=over)
    pass_time(market.chain, over + 1 - market.chain.now())
    with pytest.raises(UserError, match="is not over on chain"):
        OldBid(market.chain, market.api.job(job.id)).wait_until_dead()
    tip = given_back(market, job, 1)
    assert OldBid(market.chain, market.api.job(job.id)).wait_until_dead() == (1, tip)
