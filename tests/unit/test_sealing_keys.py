"""Encryption keys on disk: made once, encrypted, readable with the wallet key's password only."""

import json
from pathlib import Path

import pytest

from contracts import keys, sealing_keys
from contracts.errors import UserError


@pytest.fixture(autouse=True)
def cheap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    monkeypatch.setattr(sealing_keys, "OPSLIMIT", 1 << 15)
    monkeypatch.setattr(sealing_keys, "MEMLIMIT", 1 << 24)
    keys.create("rig", "secret", scrypt_n=2)


def test_it_is_made_once_and_stays(tmp_path: Path) -> None:
    first = sealing_keys.load_or_create("rig", "secret")
    assert bytes(sealing_keys.load_or_create("rig", "secret")) == bytes(first)
    (file,) = (tmp_path / "encryption").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    assert bytes(first).hex() not in file.read_text()
    assert list(keys.list_keys()) == ["rig"]  # it is no wallet key


def test_a_wrong_password_makes_nothing_and_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wrong password for key 'rig'"):
        sealing_keys.load_or_create("rig", "other")
    assert not (tmp_path / "encryption").exists()
    sealing_keys.load_or_create("rig", "secret")
    with pytest.raises(UserError, match="wrong password for the encryption key 'rig'"):
        sealing_keys.load_or_create("rig", "other")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    sealing_keys.load_or_create("rig", "secret")
    file = tmp_path / "encryption" / "rig.json"
    file.write_text(json.dumps({"salt": "00"}))
    with pytest.raises(UserError, match="is not an encryption key"):
        sealing_keys.load_or_create("rig", "secret")


def test_it_belongs_to_a_wallet_key() -> None:
    with pytest.raises(UserError, match="no key named 'nobody'"):
        sealing_keys.load_or_create("nobody", "secret")
