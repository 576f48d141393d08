"""Encrypted keys in `home()/keys/NAME.json`: the Web3 Secret Storage format (V3, scrypt), as geth and cast read it.

Passwords come from $GPUMARKET_PASSWORD, from the file that $GPUMARKET_PASSWORD_FILE names, or from a prompt;
never from the command line, and they are never logged.
"""

import getpass
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from contracts.errors import UserError
from contracts.settings import home
from contracts.strict_json import read_json, write_json

SCRYPT_N = 1 << 18  # geth's standard: about half a second and 256 MiB
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def create(name: str, password: str | None = None, scrypt_n: int = SCRYPT_N) -> str:
    """Makes a new key and returns its address. Raises UserError if the name is bad or taken.

    `scrypt_n` below the standard is for devnets and tests: it makes guessing the password cheap.
    """
    account: LocalAccount = Account.create()
    save(name, account, password, scrypt_n)
    return account.address


def save(name: str, account: LocalAccount, password: str | None = None, scrypt_n: int = SCRYPT_N) -> None:
    """Encrypts an account under `name`. Never overwrites. Raises UserError."""
    path = _path(name)
    if path.exists():
        raise _taken(name)
    if password is None:
        password = read_password(f"Password for the new key '{name}'", confirm=True)
    keystore = _encrypt(account, password, scrypt_n)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with private_scratch(path, keystore) as scratch:
        try:
            os.link(scratch, path)  # unlike a rename, this fails if the name has been taken meanwhile
        except FileExistsError as error:
            raise _taken(name) from error


def change_password(name: str, old: str, new: str, scrypt_n: int = SCRYPT_N) -> None:
    """Encrypts a key anew. Whenever it is interrupted, the file is whole and opens with one of the two."""
    account = load(name, old)
    with private_scratch(_path(name), _encrypt(account, new, scrypt_n)) as scratch:
        os.replace(scratch, _path(name))


def write_wallet_key(folder: Path, name: str, account: LocalAccount, password: str) -> None:
    """The key in another home, for one command that this process starts: its password is random and lives as long."""
    path = folder / "keys" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with private_scratch(path, _encrypt(account, password, 2)) as scratch:
        os.replace(scratch, path)


def _encrypt(account: LocalAccount, password: str, scrypt_n: int) -> Any:
    return Account.encrypt(account.key, password, kdf="scrypt", iterations=scrypt_n)


@contextmanager
def private_scratch(path: Path, content: Any) -> Iterator[Path]:
    """A file beside `path` with some JSON, on disk and for its owner only; gone at the end, if not moved."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(write_json(content))
            file.flush()
            os.fsync(file.fileno())
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


def load(name: str, password: str | None = None) -> LocalAccount:
    """Decrypts a key. Raises UserError if there is no such key, others may read its file, or the password is wrong."""
    keystore = _read(name)
    check_private(_path(name), "the keystore")
    if password is None:
        password = read_password(f"Password for key '{name}'")
    try:
        secret = Account.decrypt(keystore, password)
    except ValueError as error:
        raise UserError(
            f"wrong password for key '{name}'",
            "a password can't be recovered; the keystore is " + str(_path(name)),
        ) from error
    account: LocalAccount = Account.from_key(secret)
    return account


def address(name: str) -> str:
    """A key's address, without its password. Raises UserError if there is no such key."""
    return to_checksum_address(_read(name)["address"])


def keystore_path(name: str) -> Path:
    """Where a key's file is, or would be."""
    return _path(name)


def list_keys() -> dict[str, str]:
    """Names and addresses of all keys."""
    return {path.stem: address(path.stem) for path in sorted(_directory().glob("[!.]*.json"))}


def choose(name: str | None) -> str:
    """The key to use: the one that is named, or else the only one. Raises UserError."""
    if name is not None:
        address(name)
        return name
    known = list_keys()
    if len(known) == 1:
        return next(iter(known))
    if known:
        raise UserError("which key?", f"name one with --key or GPUMARKET_KEY: {', '.join(known)}")
    raise UserError(f"there is no key in {_directory()}", "make one: gpumarket wallet new NAME")


def read_password(prompt: str, confirm: bool = False, variable: str = "GPUMARKET_PASSWORD") -> str:
    """A password from the environment, a file, or a prompt (twice with `confirm`). Raises UserError."""
    password = os.environ.get(variable)
    if password is not None:
        return _not_empty(password, f"${variable}")
    file = os.environ.get(f"{variable}_FILE")
    if file:
        check_private(Path(file), "the password file")
        try:
            return _not_empty(Path(file).read_text(encoding="utf-8").rstrip("\r\n"), file)
        except OSError as error:
            raise UserError(f"can't read the password file {file}: {error.strerror}") from error
    if not sys.stdin.isatty():
        raise UserError("no password, and nobody to ask", f"set {variable}_FILE or {variable}")
    password = _not_empty(getpass.getpass(f"{prompt}: "), "what was typed")
    if confirm and getpass.getpass("The same again: ") != password:
        raise UserError("the two passwords differ", "try again")
    return password


def check_private(path: Path, what: str) -> None:
    """Raises UserError if other users of this machine may read a file of secrets."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # whoever reads it says why it can't be read
    if mode & 0o077:
        raise UserError(
            f"{what} {path} is open to other users of this machine (mode {mode & 0o777:04o})", f"chmod 600 {path}"
        )


def _not_empty(password: str, source: str) -> str:
    if not password:
        raise UserError(f"the password is empty ({source})", "give one of at least one character")
    return password


def _directory() -> Path:
    return home() / "keys"


def _path(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise UserError(f"'{name}' can't be a key's name", "letters, digits, '-' and '_', at most 64 of them")
    return _directory() / f"{name}.json"


def _taken(name: str) -> UserError:
    return UserError(f"there is a key named '{name}' already", "keys are never overwritten: choose another name")


def _read(name: str) -> Any:
    path = _path(name)
    try:
        keystore = read_json(path.read_text(encoding="utf-8"))
        to_checksum_address(keystore["address"])
        return keystore
    except FileNotFoundError as error:
        known = ", ".join(found.stem for found in sorted(_directory().glob("[!.]*.json")))
        raise UserError(
            f"there is no key named '{name}'",
            f"there are: {known}" if known else f"make one: gpumarket wallet new {name}",
        ) from error
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a V3 keystore with an address: {error}") from error
