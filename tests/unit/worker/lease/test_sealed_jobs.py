"""A sealed job at a worker: nothing leaves in plain and no key is taken but a party's, whatever the market says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nacl.public import PrivateKey

from contracts.api.bodies import EncryptionKeyIn, KeyGrantIn
from contracts.api.grants import make_grant, public_key
from contracts.errors import UserError
from contracts.job.file import hash_file
from contracts.job.sealing import NotOpened, new_job_key, open_text, seal, seal_file
from contracts.job.spec import FileRef
from contracts.orders import new_account
from tests.support.worker_leases import (
    APPROVER,
    CLIENT,
    DOMAIN,
    PROVIDER,
    add_checkpoints,
    job_key,
    lease_tools,
    make_folder,
    make_spec,
)
from worker.lease.folder import LeaseFolder, Store
from worker.lease.inputs import fetch_files, fetch_state
from worker.lease.job_key import JobKey, NoKey
from worker.lease.printed import Printed
from worker.lease.reporting import ReportContent, Reporter, send_report

SPEC = make_spec(sealed=True)
KEY = new_job_key()
OWN = PrivateKey.generate()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder() -> LeaseFolder:
    return make_folder(SPEC)


class Market:
    """Gives whatever it was made with; keeps what it gets."""

    def __init__(self, *grants: KeyGrantIn) -> None:
        self.given, self.keys = list(grants), list[EncryptionKeyIn]()
        self.blobs: dict[str, bytes] = {}
        self.posted: list[Any] = []
        self.reports: list[str] = []
        self.sealed_files: dict[str, FileRef] = {}
        self.is_away = False

    def encryption_key(self, account: str) -> EncryptionKeyIn | None:
        return self.keys[-1] if self.keys else None

    def put_key(self, body: EncryptionKeyIn) -> EncryptionKeyIn:
        self.keys.append(body)
        return body

    def grants(self, job: str, reader: str) -> list[KeyGrantIn]:
        return self.given

    def put_blob(self, path: Path) -> FileRef:
        ref = hash_file(path)
        self.blobs[ref.sha256] = path.read_bytes()
        return ref

    def get_blob(self, ref: FileRef, target: Path, *, job: str) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.blobs[ref.sha256])
        return target

    def post_progress(self, body: Any) -> None:
        if self.is_away:
            raise UserError("the market is away")
        self.posted.append(body)

    def post_report(self, body: Any) -> None:
        self.reports.append(body.text)

    def job(self, id: str) -> Any:
        return SimpleNamespace(sealed_files=self.sealed_files)


def grant(folder: LeaseFolder, signer: Any, key: bytes = KEY, **changes: Any) -> KeyGrantIn:
    given = {"job": folder.file.parties.bid, "reader": PROVIDER.address, "reader_key": public_key(OWN)} | changes
    return make_grant(DOMAIN, signer, job_key=key, **given)


def ask(market: Market, key: JobKey) -> bytes | None:
    client: Any = market
    return key.ask(client)


def reporter(market: Market, folder: LeaseFolder, key: JobKey) -> Reporter:
    client: Any = market
    printed = Printed(folder.printed, key.get)
    printed.write(b"the secret log\n")
    return Reporter(folder, lease_tools(), client, key, printed)


# ------------------------------------------------------------------ the key


@pytest.mark.parametrize("signer", [CLIENT, APPROVER])
def test_a_partys_grant_is_taken_and_outlives_a_restart(folder: LeaseFolder, signer: Any) -> None:
    market = Market(grant(folder, signer))
    assert ask(market, job_key(folder, SPEC, OWN)) == KEY
    (registered,) = market.keys
    assert registered.key.key == public_key(OWN)
    assert registered.key.signer(DOMAIN, registered.signature) == PROVIDER.address
    again = Store("rig").load(folder.lease)
    assert again is not None and KEY.hex() not in (again.folder / "lease.json").read_text()
    assert JobKey(again, lease_tools(encryption_key=OWN)).get() == KEY  # without a market


def test_a_market_can_not_grant_a_key_of_its_own(folder: LeaseFolder) -> None:
    market_key, stranger = new_job_key(), new_account()
    good = grant(folder, CLIENT)
    other = grant(folder, CLIENT, market_key, job="0x" + "77" * 32)  # of another job of the same client
    market = Market(
        grant(folder, stranger, market_key),
        grant(folder, PROVIDER, market_key),
        good.model_copy(update={"sealed_key": other.sealed_key}),
        other,
        grant(folder, CLIENT, market_key, reader=stranger.address),
        grant(folder, CLIENT, market_key, reader_key=public_key(PrivateKey.generate())),
    )
    key = job_key(folder, SPEC, OWN)
    with pytest.raises(NoKey, match="neither its client nor its approver"):
        ask(market, key)
    assert folder.file.grant is None
    market.given.append(good)
    assert ask(market, key) == KEY


def test_a_plain_job_has_no_key(folder: LeaseFolder) -> None:
    market = Market()
    assert ask(market, job_key(folder, make_spec())) is None
    assert market.keys == []


# ------------------------------------------------------------------ what leaves


def test_without_the_key_nothing_leaves(folder: LeaseFolder) -> None:
    market = Market()
    key = job_key(folder, SPEC, OWN)
    add_checkpoints(folder, SPEC, 1)
    reports = reporter(market, folder, key)
    for _ in range(2):
        with pytest.raises(NoKey):
            reports._report_all()
    with pytest.raises(NoKey):
        reports._tell_log(0)
    assert (market.blobs, market.posted, market.reports) == ({}, [], [])


def test_checkpoints_and_logs_leave_sealed(folder: LeaseFolder, tmp_path: Path) -> None:
    market = Market(grant(folder, APPROVER))
    key = job_key(folder, SPEC, OWN)
    ask(market, key)
    (record,) = add_checkpoints(folder, SPEC, 1)
    plain = folder.state_path(1).read_bytes()
    reports = reporter(market, folder, key)
    market.is_away = True
    with pytest.raises(UserError, match="away"):
        reports._report_all()
    market.is_away = False
    reports._report_all()
    (body,) = market.posted
    assert body.checkpoint.state == record.state and body.checkpoint.sealed.sha256 in market.blobs
    assert len(market.blobs) == 1  # the same ciphertext both times
    assert all(plain[at : at + 64] not in blob for blob in market.blobs.values() for at in range(0, len(plain), 64))
    assert not folder.sealed_path(record).exists()
    client: Any = market
    got = tmp_path / "got"
    fetch_state(client, body.checkpoint, got, job="0x", job_key=KEY)
    assert got.read_bytes() == plain
    (log,) = market.reports
    assert "secret" not in log and open_text(log, KEY) == "the secret log\n"


def test_what_was_not_told_yet_lies_sealed_and_outlives_the_agent(folder: LeaseFolder) -> None:
    market = Market(grant(folder, CLIENT))
    key = job_key(folder, SPEC, OWN)
    Printed(folder.printed, key.get).write(b"before there was a key\n")
    assert not folder.printed.exists()
    ask(market, key)
    printed = Printed(folder.printed, key.get)
    euro = "€".encode()
    printed.write(b"the secret log, with an " + euro[:1])
    printed.write(euro[1:] + b"\n")
    assert "secret" not in folder.printed.read_text()
    again = Printed(folder.printed, key.get).next(1000, whole=False)
    assert again and again.text == "the secret log, with an €\n"


def test_a_long_sealed_text_fits_into_a_report(folder: LeaseFolder) -> None:
    client: Any = Market()
    send_report(client, lease_tools(), folder.lease, ReportContent(0, "log", "€" + "😀" * 30_000), KEY)
    (sealed,) = client.reports
    assert len(sealed) < 100_000
    assert set(open_text(sealed, KEY)) == {"😀"}


# ------------------------------------------------------------------ what comes


def sealed_job(market: Market, tmp_path: Path) -> Any:
    """A job of two files whose ciphertexts the market has."""
    refs = {}
    for name, data in (("a", b"first"), ("b", b"other")):
        plain, sealed = tmp_path / f"{name}.plain", tmp_path / f"{name}.sealed"
        plain.write_bytes(data)
        seal_file(plain, sealed, KEY)
        refs[name] = hash_file(plain)
        market.sealed_files[refs[name].sha256] = market.put_blob(sealed)
    return SimpleNamespace(files=refs, sealed=True)


def test_files_are_opened(tmp_path: Path) -> None:
    market = Market()
    spec, job = sealed_job(market, tmp_path), tmp_path / "job"
    client: Any = market
    fetch_files(client, lambda *_: None, spec, job, job="0x", job_key=KEY)
    assert {path.name: path.read_bytes() for path in job.iterdir()} == {"a": b"first", "b": b"other"}


def test_other_bytes_than_the_jobs_are_not_kept(tmp_path: Path) -> None:
    market = Market()
    spec, job = sealed_job(market, tmp_path), tmp_path / "job"
    client: Any = market
    first, second = market.sealed_files
    right = dict(market.sealed_files)

    def fetch(key: bytes | None = KEY) -> None:
        fetch_files(client, lambda *_: None, spec, job, job="0x", job_key=key)

    with pytest.raises(NotOpened):
        fetch(new_job_key())
    with pytest.raises(NotOpened, match="no key"):
        fetch(None)
    market.sealed_files = {first: right[second], second: right[first]}  # both open, under the names of each other
    with pytest.raises(UserError, match="which the file is not"):
        fetch()
    for wrong in ({}, {first: FileRef(sha256=first, size=1 << 40)}):
        market.sealed_files = wrong
        with pytest.raises(UserError, match="right size"):
            fetch()
    market.sealed_files = right
    market.blobs[right[first].sha256] = b"".join(seal([b"wrong"], KEY))[:-1] + b"\0"
    with pytest.raises(NotOpened):
        fetch()
    assert list(job.iterdir()) == []
