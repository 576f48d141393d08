"""`gpumarket job` from submit to cost, on a real chain with a real market, approver and worker."""

import contextlib
import functools
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save_file
from torch import full
from typer.testing import CliRunner, Result

from contracts.api import receipts
from contracts.api.bodies import JobOut, JobStatus
from contracts.chain.client import Chain
from contracts.chain.sending.sender import Sender
from contracts.cli import main
from contracts.errors import UserError
from contracts.orders import Ask, Bid
from contracts.wallet import keys
from market.client.cli import offers
from market.client.cli.job import app
from market.services import bids
from tests.support.devnet import Funded
from tests.support.recipes import JUDGED
from tests.support.whole_market import PASSWORD, PRICE, RESOURCES, TOKEN, UNITS, Stage, wait_for
from worker.cli.local_run import train_locally
from worker.training.environment import environment_id
from worker.training.state import read_checkpoint

FREE = 100 * TOKEN
Run = Callable[..., Result]


@pytest.fixture
def stage(chain: Chain, funded: Funded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    monkeypatch.setenv("GPUMARKET_PASSWORD", PASSWORD)
    monkeypatch.setenv("COLUMNS", "200")
    rules = chain.settings.rule_set("unchecked").model_copy(
        update={"checkpoint_timeout": 360, "window": 3, "arbiter_fee": 1}
    )
    matcher, approver = funded(2)
    client, provider = funded(2, free=FREE)
    with Stage(chain, tmp_path, rules, matcher, client, provider, approver, f"sqlite:///{tmp_path}/m.sqlite3") as stage:
        monkeypatch.setenv("GPUMARKET_MARKET_URL", stage.market.url)
        keys.save("me", client, PASSWORD, scrypt_n=2)
        yield stage


@pytest.fixture
def run(stage: Stage) -> Run:
    def run(*arguments: str, code: int = 0) -> Result:
        """A command in JSON; other failures than `code` are raised."""
        done = CliRunner().invoke(app, [*arguments, "-o", "json"])
        if done.exit_code != code:
            raised = done.exception
            raise raised if isinstance(raised, UserError) else AssertionError(f"code {done.exit_code}: {done.output}")
        return done

    return run


def shown(*arguments: str) -> str:
    """What a command prints for people."""
    done = CliRunner().invoke(app, arguments)
    if done.exception:
        raise done.exception
    return done.output


def write_job(stage: Stage, **fields: Any) -> Path:
    """A job's folder; four steps a checkpoint."""
    folder = stage.home / "job"
    folder.mkdir(exist_ok=True)
    (folder / "recipe.py").write_bytes(JUDGED.read_bytes())
    given = {
        "environment": environment_id(), "recipe": "recipe.py:Judged", "config": {"judged": [3, 2, 1]}, "seed": 7,
        "files": ["recipe.py"], "checkpoint_every": 4, "units": UNITS, "max_price": "2 per checkpoint", "stake": "20",
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump(given | fields))
    return folder


def submitted(stage: Stage, run: Run, **fields: Any) -> JobOut:
    folder = write_job(stage, **fields)
    return JobOut.model_validate_json(
        run("submit", str(folder), "--key", "me", "--approver", stage.approver.address, "--yes").stdout
    )


def test_a_job_is_done_and_goes_on_as_if_it_had_been_longer(stage: Stage, run: Run) -> None:
    job = submitted(stage, run, steps=8)
    with pytest.raises(UserError, match="is not over"):
        run("extend", job.id, "--steps", "8")
    with stage.approving(), stage.agent():
        assert JobOut.model_validate_json(run("wait", job.id, "--timeout", "400").stdout).status is JobStatus.DONE
        lines = [json.loads(line) for line in run("logs", job.id).stdout.splitlines()]
        assert [one["report"]["kind"] for one in lines] == ["log"] * len(lines)
        assert "".join(one["text"] for one in lines).count("step 8 done") == 1
        offered = CliRunner().invoke(offers.app, ["list", "--job", str(stage.home / "job"), "-o", "json"]).stdout
        assert [(one["provider"], one["job"]["price"], one["job"]["likely"]) for one in json.loads(offered)] == [
            (stage.provider.address, str(PRICE), True)
        ]
        with pytest.raises(UserError, match="that job is done"):
            run("extend", job.id)
        offer = json.loads(run("extend", job.id, "--steps", "8", "--dry-run").stdout)
        assert int(offer["highest_cost"]) == 2 * 2 * PRICE
        more = JobOut.model_validate_json(run("extend", job.id, "--steps", "8", "--yes").stdout)
        assert (more.spec.start_step, more.spec.steps, more.spec.config) == (8, 8, job.spec.config)
        run("wait", more.id, "--timeout", "400")
    assert stage.free(stage.client) == FREE - 4 * PRICE
    cost = json.loads(run("cost", more.id).stdout)["total"]
    assert cost == {"paid": str(2 * PRICE), "fees": "0", "refunded": "0", "penalty": "0", "locked": "0",
                    "spent": str(2 * PRICE)}  # fmt: skip
    table = shown("cost", more.id)
    assert "spent 2 tUSD for 2 of 2 checkpoints, 0 tUSD locked; at most 2 tUSD per checkpoint" in " ".join(
        table.split()
    )
    printed = shown("logs", job.id)
    assert f"lease {stage.leases(job.id)[0].id[:12]}" in printed and "step 8 done\n" in printed
    (last,) = list(stage.market.checkpoints(more.id))[-1:]
    assert last.checkpoint.step == 16
    whole = job.spec.model_copy(update={"steps": 16})
    record = train_locally(whole, stage.home / "job", stage.home / "whole")
    assert record.state_root == last.checkpoint.state_root
    with pytest.raises(UserError, match=r"the folder .*/job.yaml can't be made"):
        run("pull", more.id, str(stage.home / "job/job.yaml"))
    assert "checkpoint 2, verified up to tip" in shown("pull", more.id, str(stage.home / "pulled"))
    kept = receipts.load_receipts(stage.market.info().matcher)
    bids_kept = {one.id for one in kept if isinstance(one.order, Bid)}
    asks_kept = {one.id for one in kept if isinstance(one.order, Ask)}
    assert bids_kept == {job.id, more.id}
    assert asks_kept == {ask.id for ask in stage.market.asks()} != set()


def test_what_happens_is_told_when_it_happens(stage: Stage, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reported, approved and paid are three numbers: a worker redeems once per half timeout, and at the end."""
    monkeypatch.setenv("COLUMNS", "80")
    job = submitted(stage, run, steps=160, name="told at once", config={"judged": [1], "pause": 0.6})
    with stage.agent():
        wait_for("a report", lambda: stage.job(job.id).reported)
        now = stage.job(job.id)
        assert (now.approved, now.settled) == (0, 0) and now.newest is not None and now.newest.status == "reported"
        with stage.approving():
            wait_for("an approval", lambda: stage.job(job.id).approved)
        now = stage.job(job.id)
        assert now.reported >= now.approved >= max(1, now.settled) and now.newest is not None
        for command in (("show", job.id[:9]), ("show", "told at once"), ("list",), ("cost", job.id), ("list", "--all")):
            printed = shown(*command)
            assert max(map(len, printed.splitlines())) <= 80 and "…" not in printed, printed
            assert "told at once" in printed
        assert f"{now.newest.metrics['loss']:.3g}" in shown("list") or stage.job(job.id).newest != now.newest
        waited = CliRunner().invoke(app, ["wait", "told at once", "--timeout", "0.1"])
        assert waited.exit_code == 4
        assert re.search(r"running; \d+ reported, \d+ approved, \d+ paid of 40; checkpoint \d+ ", waited.output)
    everybodys_tables_are_whole(stage, job.id)
    with pytest.raises(UserError, match="no job has the name 'told'") as caught:
        run("show", "told")
    assert "--all" in str(caught.value.hint)
    twin = submitted(stage, run, steps=8, name="told at once")
    with pytest.raises(UserError, match="2 jobs have the name 'told at once'") as caught:
        run("cost", "told at once")
    assert all(one.id[:12] in str(caught.value.hint) for one in (job, twin))
    assert {one["id"] for one in json.loads(run("list").stdout)} == {job.id, twin.id}
    keys.create("stranger", scrypt_n=2)
    assert json.loads(run("list", "--key", "stranger").stdout) == []
    assert "no jobs of yours" in shown("list", "--key", "stranger")


@pytest.mark.long
def test_a_job_of_more_work_than_it_signs_is_given_back_and_repriced(stage: Stage, run: Run) -> None:
    """Steps are signed with a quarter of a second, and take three."""
    job = submitted(stage, run, steps=12, config={"judged": [1], "pause": 3})
    with stage.approving(), stage.agent(release_wait=30):
        gave_back = wait_for("that", lambda: (now := stage.job(job.id)).reason.startswith("1 provider") and now)
        assert "gave it back: its steps take 1" in gave_back.reason and "gpumarket job reprice" in gave_back.reason
        done = gave_back.accepted
        assert done == 1 and gave_back.leases[0].stops == "units"
        with pytest.raises(UserError, match="nothing of the job's terms"):
            run("reprice", job.id)
        terms = ("--units", str(12 * UNITS), "--max-price", "13")
        offer = json.loads(run("reprice", job.id, *terms, "--dry-run").stdout)
        assert int(offer["highest_cost"]) == (3 - done) * 13 * TOKEN
        told = shown("reprice", job.id, *terms, "--dry-run")
        assert "To cancel it: give up the rest of the job" in told and "Dry run: nothing was signed" in told
        assert stage.job(job.id).status == JobStatus.PENDING
        anew = JobOut.model_validate_json(run("reprice", job.id, *terms, "--yes").stdout)
        assert stage.job(job.id).status == JobStatus.CANCELLED
        assert (anew.bid.units, anew.bid.max_price, anew.bid.checkpoints) == (12 * UNITS, 13 * TOKEN, 3 - done)
        assert anew.spec.start_step == 4 * done
        with pytest.raises(UserError, match=r"a lease of job .* is not over"):
            wait_for("its lease", lambda: stage.job(anew.id).leases)
            run("reprice", anew.id, "--max-price", "14")
        run("wait", anew.id, "--timeout", "400")
    with pytest.raises(UserError, match="is done"):
        run("reprice", anew.id, "--max-price", "14")
    assert stage.free(stage.client) == FREE - done * PRICE - (3 - done) * 12 * PRICE


@pytest.mark.long  # client/test_replacing.py has each step of it
def test_a_job_that_waits_is_repriced_and_never_opened_twice(stage: Stage, run: Run, tmp_path: Path) -> None:
    job = submitted(stage, run, steps=8, max_price="0.1")
    other = submitted(stage, run, steps=8, seed=2)
    told = shown("reprice", job.id, "--max-price", "2", "--dry-run")
    assert "raise your page of orders from 0 to 1" in told and f"Also cancelled: {other.id[:12]}" in told
    assert "this very job is in already" not in told
    with pytest.raises(UserError, match="no rules named 'nobody'"):
        run("reprice", job.id, "--rules", "nobody", "--yes")
    assert stage.chain.account(stage.client.address).page == 0
    anew = JobOut.model_validate_json(run("reprice", job.id, "--max-price", "2", "--yes").stdout)
    assert (anew.bid.page, anew.bid.max_price, anew.bid.job) == (1, 2 * TOKEN, job.bid.job)
    assert {stage.job(one.id).status for one in (job, other)} == {JobStatus.CANCELLED}
    with pytest.raises(UserError, match="has no accepted checkpoint, and is cancelled"):
        run("pull", job.id, str(tmp_path))
    # Interrupted after the cancellation, it goes on: there is nothing more to cancel.
    again = JobOut.model_validate_json(run("reprice", other.id, "--max-price", "1.5", "--yes").stdout)
    assert (again.bid.page, stage.chain.account(stage.client.address).page) == (1, 1)
    with stage.approving(), stage.agent():
        for one in (anew, again):
            run("wait", one.id, "--timeout", "400")
    assert stage.leases(job.id) == stage.leases(other.id) == []


def everybodys_tables_are_whole(stage: Stage, job: str) -> None:
    """At 80 columns: nothing is cut, and no line is longer; a value longer than that stands alone in its line."""
    for command in (
        "wallet show",
        "wallet address me",
        "offer list",
        f"offer list --all --job {stage.home}/job",
        "epoch list",
        "epoch show 1",
        f"job show {job}",
        "job list --all",
        f"job cost {job}",
        "market settings",
        "provider status --key rig",
        "provider earnings --key rig",
    ):
        done = CliRunner().invoke(main.app, command.split())
        assert done.exit_code == 0, f"{command}: {done.output}"
        assert "…" not in done.stdout, f"{command}: {done.stdout}"
        for line in done.stdout.splitlines():
            is_note = line.startswith("tokens: ")  # a sentence below the table, which the terminal wraps
            assert len(line.rstrip()) <= 80 or len(line.split()) == 1 or is_note, f"{command}: {line}"


def test_a_job_stops_early_and_only_what_was_made_is_paid(stage: Stage, run: Run) -> None:
    stop = {"metric": "eval_loss", "patience": 2}
    job = submitted(stage, run, steps=40, stop=stop, config={"judged": [3, 1, 2, 1]}, budget="12", max_price=None)
    assert job.bid.max_price == 12 * TOKEN // 10
    with stage.approving(), stage.agent():
        done = JobOut.model_validate_json(run("wait", job.id, "--timeout", "400").stdout)
    assert (done.status, done.accepted) == (JobStatus.DONE, 4)
    assert done.reason == "early stop at checkpoint 4: eval_loss made no progress for 2 checkpoints"
    assert done.metrics["eval_loss"] == 1
    assert stage.free(stage.client) == FREE - 4 * PRICE  # of the lock nothing is left
    assert stage.free(stage.provider) >= FREE + 4 * PRICE - 20 * TOKEN
    # The Bid is alive, but the market does not open it again.
    with stage.agent():
        wait_for("an Ask", lambda: list(stage.market.asks(status="open")))
        wait_for("some epochs", lambda: not stage.leases(job.id)[1:])
    assert len(stage.leases(job.id)) == 1


@contextlib.contextmanager
def web(folder: Path) -> Iterator[str]:
    """A web server on this machine for the files in `folder`."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_weights_to_start_from_come_from_an_allowed_host(stage: Stage, run: Run) -> None:
    served = stage.home / "served"
    served.mkdir()
    save_file({"weight": full((16, 16), 0.25), "bias": full((16,), 0.5)}, served / "start.safetensors")
    data = (served / "start.safetensors").read_bytes()
    with web(served) as url, stage.approving():
        remote = {"url": f"{url}/start.safetensors", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        job = submitted(
            stage, run, steps=4, files={"recipe.py": None, "w/start.safetensors": remote}, start="w/start.safetensors"
        )
        with stage.agent():
            reason = "no fitting machine fetches files from the hosts that the job's files are at"
            wait_for("the market's refusal", lambda: stage.job(job.id).reason == reason)
        with stage.agent(resources=RESOURCES.model_copy(update={"hosts": ("127.0.0.1",)})):
            run("wait", job.id, "--timeout", "400")
    assert "checkpoint 1, verified up to tip" in shown("pull", job.id, str(stage.home / "pulled"))
    state = read_checkpoint(stage.home / "pulled" / "checkpoint-00001.safetensors")
    assert abs(state["model/bias"].mean().item() - 0.5) < 0.1


def test_ways_out(stage: Stage, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = submitted(stage, run, steps=8, seed=1)
    with monkeypatch.context() as market:
        market.setattr(bids, "sign_receipt", lambda *_: None)
        printed = shown("submit", str(write_job(stage, steps=8, seed=2)), "--key", "me", "--yes")
    assert "Note: the market gave no receipt for the order. Nobody could show" in printed and "is in." in printed
    (second,) = (job for job in stage.market.jobs() if job.id != first.id)
    plan = json.loads(run("cancel", first.id, "--dry-run").stdout)
    assert (plan["also_cancelled"], plan["dry_run"]) == ([second.id], True)
    assert stage.chain.account(stage.client.address).page == 0
    done = json.loads(run("cancel", first.id, "--yes").stdout)
    assert 0 < int(done["cost_wei"]) <= int(plan["max_cost_wei"])
    assert Sender(stage.chain, stage.client).knows("page 1")
    for job in (first, second):
        wait_for("the end", lambda job=job: stage.job(job.id).status == JobStatus.CANCELLED)
    with pytest.raises(UserError, match="cancelled already"):
        run("cancel", first.id, "--yes")
    run("wait", first.id, code=3)

    running = submitted(stage, run, steps=160, config={"judged": [1], "pause": 0.4})
    with stage.approving(), stage.agent():
        wait_for("a checkpoint", lambda: stage.made() >= 1)
        run("wait", running.id, "--timeout", "0.1", code=4)
        told = shown("cancel", running.id, "--dry-run")
        assert "To cancel it: end lease" in told and "Free again: " in told and "nothing was sent" in told
        assert "Gas: at most 0.0" in told
        run("cancel", running.id, "--yes")
        wait_for("its end", lambda: stage.job(running.id).status == JobStatus.CANCELLED)
    ended = stage.job(running.id)
    cost = json.loads(run("cost", running.id).stdout)["total"]
    assert (int(cost["paid"]), cost["locked"]) == (ended.accepted * PRICE, "0")
    assert stage.free(stage.client) == FREE - ended.accepted * PRICE
    assert int(cost["refunded"]) == (40 - ended.accepted) * PRICE
    with pytest.raises(UserError, match="is over"):
        run("cancel", running.id, "--yes")
