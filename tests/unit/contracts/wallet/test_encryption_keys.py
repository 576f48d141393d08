"""Encryption keys on disk: made once, encrypted, readable with the wallet key's password only."""

import json
from functools import partial
from pathlib import Path

import pytest
from nacl.public import PrivateKey
from typer.testing import CliRunner, Result

from contracts.cli import wallet
from contracts.errors import UserError
from contracts.wallet import encryption_keys, keys


@pytest.fixture(autouse=True)
def cheap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    monkeypatch.setattr(encryption_keys, "OPSLIMIT", 1 << 15)
    monkeypatch.setattr(encryption_keys, "MEMLIMIT", 1 << 24)
    keys.create("rig", "secret", scrypt_n=2)


def test_it_is_made_once_and_stays(tmp_path: Path) -> None:
    first = encryption_keys.load_or_create("rig", "secret")
    assert bytes(encryption_keys.load_or_create("rig", "secret")) == bytes(first)
    (file,) = (tmp_path / "encryption").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    assert bytes(first).hex() not in file.read_text()
    assert list(keys.list_keys()) == ["rig"]  # it is no wallet key


def test_of_two_processes_that_make_one_the_first_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[PrivateKey] = []
    generate = PrivateKey.generate

    def meanwhile() -> PrivateKey:
        monkeypatch.setattr(PrivateKey, "generate", generate)
        first.append(encryption_keys.load_or_create("rig", "secret"))
        return generate()

    monkeypatch.setattr(PrivateKey, "generate", meanwhile)
    assert bytes(encryption_keys.load_or_create("rig", "secret")) == bytes(first[0])


def test_a_wrong_password_makes_nothing_and_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wrong password for key 'rig'"):
        encryption_keys.load_or_create("rig", "other")
    assert not (tmp_path / "encryption").exists()
    encryption_keys.load_or_create("rig", "secret")
    with pytest.raises(UserError, match="wrong password for the encryption key 'rig'"):
        encryption_keys.load_or_create("rig", "other")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    encryption_keys.load_or_create("rig", "secret")
    file = tmp_path / "encryption" / "rig.json"
    file.write_text(json.dumps({"salt": "00"}))
    with pytest.raises(UserError, match="is not an encryption key"):
        encryption_keys.load_or_create("rig", "secret")


def test_it_belongs_to_a_wallet_key() -> None:
    with pytest.raises(UserError, match="no key named 'nobody'"):
        encryption_keys.load_or_create("nobody", "secret")


def test_a_password_is_changed_for_both_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted between the two files, the same command ends what it began."""
    secret, address = bytes(encryption_keys.load_or_create("rig", "secret")), keys.address("rig")
    (tmp_path / "new").write_text("better\n")
    (tmp_path / "new").chmod(0o600)
    monkeypatch.setenv("GPUMARKET_PASSWORD", "secret")
    monkeypatch.setenv("GPUMARKET_NEW_PASSWORD_FILE", str(tmp_path / "new"))
    change = keys.change_password

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(keys, "change_password", killed)
    assert run("passwd", "rig").exit_code != 0
    assert keys.load("rig", "secret").address == address
    monkeypatch.setattr(keys, "change_password", partial(change, scrypt_n=2))
    assert run("passwd", "rig").exit_code == 0
    assert keys.load("rig", "better").address == address
    assert bytes(encryption_keys.load_or_create("rig", "better")) == secret
    with pytest.raises(UserError, match="wrong password"):
        keys.load("rig", "secret")
    files = sorted(path for path in tmp_path.rglob("*.json*"))
    assert [path.name for path in files] == ["rig.json", "rig.json"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_a_wrong_password_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_PASSWORD", "guess")
    monkeypatch.setenv("GPUMARKET_NEW_PASSWORD", "better")
    result = run("passwd", "rig")
    assert "wrong password for key 'rig'" in str(result.exception)
    assert keys.load("rig", "secret")


def run(*args: str) -> Result:
    return CliRunner().invoke(wallet.app, args)
