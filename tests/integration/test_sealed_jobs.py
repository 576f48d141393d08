"""Sealed jobs on a real chain with real training: nothing of them is with the market in plain, and all of it works."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey
from typer.testing import CliRunner

from contracts.api.access import Signer
from contracts.api.bodies import BidIn, EncryptionKeyIn, JobOut, JobStatus
from contracts.api.grants import find_grant, fresh_key, granted_job_key, make_grant, public_key
from contracts.chain.client import Chain, connect
from contracts.chain.sending.sender import Sender
from contracts.cli.jobs import checker
from contracts.errors import UserError
from contracts.job.sealing import new_job_key
from contracts.job.spec import JobSpec
from contracts.orders import Bid, Domain, EncryptionKey, new_account
from contracts.types import to_hex
from contracts.wallet import encryption_keys, keys
from market.client.cli.job import app
from market.client.job_keys import put_sealed
from market.maintenance.reconcile import reconcile
from market.maintenance.retention import Keep
from tests.support.devnet import Funded, contract_wallet, pass_time
from tests.support.recipes import JUDGED
from tests.support.whole_market import PASSWORD, TOKEN, UNITS, Stage, terminate, wait_for
from worker.agent.agent import Agent
from worker.cli.local_run import train_locally
from worker.training.environment import environment_id

FREE = 100 * TOKEN
TIMEOUT = 240  # seconds for a checkpoint
SAID = "what the recipe says is for those only who have the key: " + "0123456789" * 3


@pytest.fixture
def people(funded: Funded) -> list[LocalAccount]:
    """Matcher, approver; client and two providers with deposits."""
    return funded(2) + funded(3, free=FREE)


@pytest.fixture
def stage(chain: Chain, people: list[LocalAccount], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    monkeypatch.setenv("GPUMARKET_PASSWORD", PASSWORD)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(encryption_keys, "OPSLIMIT", 1 << 15)
    monkeypatch.setattr(encryption_keys, "MEMLIMIT", 1 << 24)
    rules = chain.settings.rule_set("unchecked").model_copy(
        update={"checkpoint_timeout": TIMEOUT, "window": 2, "arbiter_fee": 1}
    )
    matcher, approver, client, provider, _ = people
    with Stage(chain, tmp_path, rules, matcher, client, provider, approver, f"sqlite:///{tmp_path}/m.sqlite3") as stage:
        monkeypatch.setenv("GPUMARKET_MARKET_URL", stage.market.url)
        keys.save("me", client, PASSWORD, scrypt_n=2)
        yield stage


def run(*arguments: str) -> str:
    """What a command prints for people."""
    done = CliRunner().invoke(app, arguments)
    if done.exception:
        raise done.exception
    return done.output


def submit(stage: Stage, checkpoints: int, pause: float, code: str = "") -> JobOut:
    """`code` is put at the recipe's end."""
    folder = stage.home / "job"
    folder.mkdir(exist_ok=True)
    (folder / "recipe.py").write_text(JUDGED.read_text() + f"\n\nprint({SAID!r})\n{code}")
    (folder / "data.bin").write_bytes(os.urandom(200_000))
    job = {
        "environment": environment_id(), "recipe": "recipe.py:Judged", "config": {"judged": [1], "pause": pause},
        "seed": 7, "files": ["recipe.py", "data.bin"], "steps": 4 * checkpoints, "checkpoint_every": 4,
        "units": UNITS, "max_price": "2 per checkpoint", "stake": "20", "sealed": True,
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    run("submit", str(folder), "--key", "me", "--approver", stage.approver.address, "--yes")
    return stage.market.job(next(iter(stage.market.jobs())).id)


def approver_is_known(stage: Stage) -> None:
    wait_for("the approver's key", lambda: stage.market.encryption_key(stage.approver.address))


@contextmanager
def another_provider(stage: Stage, account: LocalAccount) -> Iterator[None]:
    """With a key, a folder and an encryption key of its own."""
    keys.save("other", account, PASSWORD, scrypt_n=2)
    agent = Agent("other", stage.offer(), connect(stage.settings), account, PrivateKey.generate())
    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        agent.stop()
        thread.join(300)


def windows(data: bytes) -> set[bytes]:
    """Runs of 64 bytes from all of it, a hundred or so; but for those that any file may have."""
    runs = (data[at : at + 64] for at in range(0, len(data) - 63, max(64, len(data) // 100)))
    return {run for run in runs if len(set(run)) > 8}


def test_what_a_sealed_recipe_says_stays_with_its_provider_nowhere(stage: Stage) -> None:
    """Neither in logs nor in files, while it runs or after it: its failure neither. Its readers get all of it."""
    word = "swordfish-and-more"
    fails = f"def fails(self, i):\n    raise ValueError('{word}')\n\n\nJudged.evaluate = lambda self: fails(self, 1)\n"
    with stage.approving():
        approver_is_known(stage)
        job = submit(stage, 2, 0.1, fails)
        process = stage.agent_process()
        (report,) = wait_for(
            "its failure", lambda: [one for one in stage.market.reports(job.id) if one.report.kind == "failed"]
        )
        assert terminate(process, 300) == 0
    told = run("logs", job.id)
    assert SAID in told and f"exception: ValueError: {word}" in told and "raise ValueError(" in told
    assert word not in (report.text or "")
    kept = [path for path in (stage.home / "provider").rglob("*") if path.is_file()]
    assert any(path.name == "lease.json" for path in kept) or any(path.parent.name == "over" for path in kept)
    for path in [*kept, stage.home / "agent.log"]:
        if path.parent.name != "job":  # the job's own files are there as long as the lease
            found = path.read_bytes()
            assert SAID.encode() not in found and word.encode() not in found, path
    assert "exception: the job is sealed, so only its readers are told more" in stage.log()


def test_a_sealed_job_changes_hands_and_the_market_sees_nothing(
    stage: Stage, people: list[LocalAccount], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="has registered no encryption key"):
        submit(stage, 4, 0.2)
    assert list(stage.market.jobs()) == []
    with stage.approving():
        approver_is_known(stage)
        job = submit(stage, 4, 0.2)
        assert set(job.sealed_files) == {ref.sha256 for ref in job.spec.files.values()}
        process = stage.agent_process()
        wait_for("an approval", lambda: any(one.status == "approved" for one in stage.market.checkpoints(job.id)))
        process.kill()
        process.wait()
        pass_time(stage.chain, TIMEOUT)
        with another_provider(stage, people[4]):
            run("wait", job.id, "--timeout", "400")
            first, second = stage.leases(job.id)
            assert {first.provider, second.provider} == {people[3].address, people[4].address}
            assert second.start > 0  # it went on from what the first one had sealed
            # A job that goes on from this one has the same key.
            run("extend", job.id, "--steps", "4", "--yes")
            more = next(one for one in stage.market.jobs() if one.id != job.id)
            run("wait", more.id, "--timeout", "400")
    pulled = tmp_path / "pulled"
    assert "checkpoint 4, verified up to tip" in run("pull", job.id, str(pulled), "--all")
    assert "checkpoint 1, verified up to tip" in run("pull", more.id, str(pulled / "more"))
    assert SAID in run("logs", job.id) and "step 20 done" in run("logs", more.id)

    whole = job.spec.model_copy(update={"steps": 20, "config": job.spec.config | {"pause": 0}})
    record = train_locally(whole, stage.home / "job", tmp_path / "whole")
    names = [f"checkpoint-{index:05}.safetensors" for index in range(1, 6)]
    made = [(tmp_path / "whole" / name).read_bytes() for name in names]
    assert [(pulled / name).read_bytes() for name in names[:4]] == made[:4]
    (last,) = stage.market.checkpoints(more.id)
    assert last.checkpoint.state_root == record.state_root

    files = [path for path in (stage.home / "blobs").rglob("*") if path.is_file()]
    files += stage.home.glob("m.sqlite3*")
    seen = b"\n".join(path.read_bytes() for path in files)
    assert job.id.encode() in seen and len(seen) > 200_000  # it is what the market has
    plain = [*made, *(path.read_bytes() for path in (stage.home / "job").iterdir() if path.name != "job.yaml")]
    for data in plain:
        assert windows(data)
        assert [run for run in windows(data) if run in seen] == []
    assert SAID.encode() not in seen and b"step 4 done" not in seen

    context = stage.server.context
    checks = reconcile(stage.chain, context.db, context.blobs, Keep.of(context.settings))
    found = [difference for check in checks for difference in check.differences]
    assert [one for one in found if not one.startswith("chain_block")] == []  # the chain goes on meanwhile
    assert [check.compared for check in checks[-2:]] == [4, 5]  # files of both jobs, checkpoints of both
    an_auditor_needs_the_key(job, tmp_path)


@pytest.mark.long
def test_a_sealed_job_is_repriced_with_its_key(stage: Stage, tmp_path: Path) -> None:
    """Another Bid for the rest: files and state are sealed as they were, and its readers can open them."""
    with stage.approving():
        approver_is_known(stage)
        job = submit(stage, 20, 0.5)
        with stage.agent():
            wait_for("a checkpoint that is paid for", lambda: stage.job(job.id).approved)
            run("cancel", job.id, "--yes")
            wait_for("its end", lambda: stage.job(job.id).status == JobStatus.CANCELLED)
            done = stage.job(job.id).accepted
            assert 0 < done < 20
            run("reprice", job.id, "--max-price", "1.5", "--yes")
            (anew,) = [one for one in stage.market.jobs() if one.id != job.id]
            run("wait", anew.id, "--timeout", "400")
    assert (anew.bid.checkpoints, stage.job(anew.id).sealed_files) == (20 - done, job.sealed_files)
    assert f"checkpoint {20 - done}, verified up to tip" in run("pull", anew.id, str(tmp_path / "pulled"))
    assert SAID in run("logs", anew.id)


def an_auditor_needs_the_key(job: JobOut, tmp_path: Path) -> None:
    auditor = new_account()
    keys.save("auditor", auditor, PASSWORD, scrypt_n=2)
    assert "needs the job's key, too" in run("auditor", job.id, auditor.address)
    pull: Callable[[], str] = lambda: run("pull", job.id, str(tmp_path / "audit"), "--key", "auditor")  # noqa: E731
    with pytest.raises(UserError, match="has registered no encryption key"):
        run("grant", job.id, auditor.address)
    with pytest.raises(UserError, match="nobody has given its key"):
        pull()
    assert "has the key" in run("grant", job.id, auditor.address)
    assert "checkpoint 4, verified up to tip" in pull()


class OwnersSigner(Signer):
    """Signs for a contract wallet with its owner's key."""

    def __init__(self, wallet: str, owner: LocalAccount, domain: Domain) -> None:
        super().__init__(owner, domain)
        self._wallet = wallet

    @property
    def address(self) -> str:
        return self._wallet


def test_a_contract_wallet_has_a_sealed_job(stage: Stage, tmp_path: Path) -> None:
    """Bid, keys and grants are signed by its owner, and by the wallet's word on chain they are its own."""
    market, domain, owner = stage.market, stage.chain.domain, stage.client
    wallet, auditor, job_key = contract_wallet(stage.chain, owner), new_account(), new_job_key()
    Sender(stage.chain, owner).send(stage.chain.approve(20 * TOKEN))
    Sender(stage.chain, owner).send(stage.chain.deposit(wallet, 20 * TOKEN))
    own, auditors = PrivateKey.generate(), PrivateKey.generate()
    key = EncryptionKey(account=wallet, key=public_key(own), time=int(time.time()))
    market.put_key(EncryptionKeyIn(key=key, signature=key.sign(domain, owner)))
    is_signed = checker(stage.settings)
    assert fresh_key(market, wallet, is_signed) == public_key(own)

    market.signer = OwnersSigner(wallet, owner, domain)
    plain, cipher = put_sealed(market, JUDGED, job_key)
    spec = JobSpec(
        environment=environment_id(), recipe="recipe.py:Judged", config={"judged": [1], "pause": 0}, seed=7, steps=4,
        files={"recipe.py": plain}, checkpoint_every=4, sealed=True,
    )  # fmt: skip
    bid = Bid(
        client=wallet, matcher=market.info().matcher, approver=stage.approver.address, job=to_hex(spec.job_hash()),
        rules=stage.rules.struct_hash(), checkpoints=1, units=UNITS, max_price=2 * TOKEN, fee=0, stake=20 * TOKEN,
        valid_until=2**40 - 1, nonce=0,
    )  # fmt: skip
    readers = {
        wallet: own, auditor.address: auditors, stage.approver.address: stage.approvers_encryption,
        stage.provider.address: stage.encryption,
    }  # fmt: skip
    grants = [
        make_grant(domain, owner, bid.digest(domain), reader, public_key(one), job_key)
        for reader, one in readers.items()
    ]
    body = BidIn(
        bid=bid, signature=bid.sign(domain, owner), spec=spec, sealed_files={plain.sha256: cipher}, grants=grants
    )
    with stage.approving(), stage.agent():
        job = market.post_bid(body)
        run("wait", job.id, "--timeout", "400")
    assert stage.chain.account(wallet).free == 19 * TOKEN
    found = find_grant(market, job.id, wallet, own, [wallet], is_signed)
    assert found is not None and found[1] == job_key
    assert granted_job_key(market, domain, job, auditor, auditors, is_signed) == job_key


@pytest.mark.long
def test_a_provider_without_the_key_gives_up_and_one_with_it_fails_in_secret(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.lease.trainer.KEY_SHARE", 0.05)
    with stage.approving():
        approver_is_known(stage)
    job = submit(stage, 2, 0, f"def broken(self, i):\n    raise ValueError({SAID!r})\n\nJudged.step = broken\n")
    with stage.agent(once=True, release_wait=1) as agent:
        agent.join(400)
        assert not agent.is_alive()
    assert stage.free(stage.provider) == FREE
    assert stage.folder().file.made == 0 and not list(stage.folder().work_folder.iterdir())
    (report, *_) = before = list(stage.market.reports(job.id))
    assert report.report.kind == "failed"
    assert report.text is not None and "neither its client nor its approver has given its key" in report.text

    monkeypatch.setattr("worker.lease.trainer.KEY_SHARE", 0.25)
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(400)
        assert not agent.is_alive()
    told = list(stage.market.reports(job.id))[len(before) :]
    assert "failed" in {one.report.kind for one in told}
    assert all(one.text is not None and one.text.startswith("sealed:") for one in told)
    assert run("logs", job.id).count(f"ValueError: {SAID}") >= 1
    seen = b"".join(path.read_bytes() for path in [*stage.home.glob("m.sqlite3*"), *stage.home.glob("blobs/*/*")])
    assert job.id.encode() in seen and SAID.encode() not in seen
    assert stage.job(job.id).status != JobStatus.DONE
