"""Encrypted keys: made once, never overwritten, opened with the password only."""

import json
import stat
from pathlib import Path

import pytest
from eth_account import Account

from contracts.errors import UserError
from contracts.wallet import keys


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GPUMARKET_PASSWORD", "correct horse")
    monkeypatch.delenv("GPUMARKET_PASSWORD_FILE", raising=False)
    return tmp_path / "home"


def new(name: str = "alice") -> str:
    return keys.create(name, scrypt_n=2)


def test_a_key_opens_with_its_password(home: Path) -> None:
    address = new()
    assert keys.address("alice") == keys.load("alice").address == address
    path = home / "keys" / "alice.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keystore = json.loads(path.read_text())
    assert (keystore["version"], keystore["crypto"]["kdf"], keystore["crypto"]["kdfparams"]["n"]) == (3, "scrypt", 2)
    assert [file.name for file in path.parent.iterdir()] == ["alice.json"]


def test_the_standard_cost_unless_asked_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def encrypt(key: bytes, password: str, kdf: str, iterations: int) -> dict[str, str]:
        seen.append(iterations)
        return {"address": "0" * 40}

    monkeypatch.setattr(Account, "encrypt", encrypt)
    keys.create("alice")
    assert seen == [1 << 18]


def test_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    new()
    monkeypatch.setenv("GPUMARKET_PASSWORD", "battery staple")
    with pytest.raises(UserError, match="wrong password for key 'alice'") as caught:
        keys.load("alice")
    assert "battery" not in str(caught.value.__dict__)


def test_never_overwritten(home: Path) -> None:
    new()
    before = (home / "keys" / "alice.json").read_text()
    with pytest.raises(UserError, match="there is a key named 'alice' already"):
        new()
    assert (home / "keys" / "alice.json").read_text() == before


def test_a_name_taken_while_encrypting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encrypt = Account.encrypt

    def slow(*args: object, **kwargs: object) -> object:
        (home / "keys").mkdir(parents=True)
        (home / "keys" / "alice.json").write_text("other's")
        return encrypt(*args, **kwargs)

    monkeypatch.setattr(Account, "encrypt", slow)
    with pytest.raises(UserError, match="already"):
        new()
    assert [(f.name, f.read_text()) for f in (home / "keys").iterdir()] == [("alice.json", "other's")]


@pytest.mark.parametrize("name", ["", "../alice", "a/b", ".hidden", "a b", "x" * 65, "alice.json"])
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(UserError, match="can't be a key's name"):
        keys.address(name)


def test_no_such_key() -> None:
    with pytest.raises(UserError, match="there is no key named 'alice'") as caught:
        keys.load("alice")
    assert caught.value.hint == "make one: gpumarket wallet new alice"
    new("bob")
    with pytest.raises(UserError) as caught:
        keys.address("alice")
    assert caught.value.hint == "there are: bob"


def test_a_file_that_is_no_keystore(home: Path) -> None:
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "alice.json").write_text("[]")
    with pytest.raises(UserError, match="is not a V3 keystore"):
        keys.address("alice")


def test_which_key() -> None:
    with pytest.raises(UserError, match="there is no key in"):
        keys.choose(None)
    alice = new("alice")
    assert keys.choose(None) == "alice"
    bob = new("bob")
    assert keys.list_keys() == {"alice": alice, "bob": bob}
    with pytest.raises(UserError, match=r"which key\?") as caught:
        keys.choose(None)
    assert "alice, bob" in (caught.value.hint or "")
    assert keys.choose("bob") == "bob"


def test_password_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new()
    monkeypatch.delenv("GPUMARKET_PASSWORD")
    file = tmp_path / "password"
    monkeypatch.setenv("GPUMARKET_PASSWORD_FILE", str(file))
    with pytest.raises(UserError, match="can't read the password file"):
        keys.load("alice")
    file.touch(0o600)
    file.write_text("correct horse\n")
    keys.load("alice")
    file.write_text("\n")
    with pytest.raises(UserError, match="the password is empty"):
        keys.load("alice")


def test_password_from_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUMARKET_PASSWORD")
    with pytest.raises(UserError, match="nobody to ask"):
        new()
    answers = iter(["one", "two", "same", "same", "same"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    with pytest.raises(UserError, match="differ"):
        new()
    new()
    keys.load("alice")
    assert next(answers, None) is None


def test_secrets_that_others_can_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.create("rig", "hunter2", scrypt_n=2)
    monkeypatch.delenv("GPUMARKET_PASSWORD")
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    monkeypatch.setenv("GPUMARKET_PASSWORD_FILE", str(file))
    for mode in (0o640, 0o604, 0o644):
        file.chmod(mode)
        with pytest.raises(UserError, match=f"password file .* is open to other users .*{mode:04o}") as caught:
            keys.load("rig")
        assert caught.value.hint == f"chmod 600 {file}"
    file.chmod(0o600)
    assert keys.load("rig").address == keys.address("rig")
    keys.keystore_path("rig").chmod(0o644)
    with pytest.raises(UserError, match=r"keystore .* is open to other users"):
        keys.load("rig")
