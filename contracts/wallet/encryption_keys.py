"""Encryption keys in `home()/encryption/NAME.json`: the X25519 key beside the wallet key of the same name.

Kept apart from the wallet's key, so that reading a job's files never needs the key that moves money. Encrypted with
the same password (scrypt and libsodium's secretbox).
"""

import os
import secrets
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from nacl import pwhash
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey
from nacl.secret import SecretBox

from contracts.errors import UserError
from contracts.settings import home
from contracts.strict_json import read_json
from contracts.wallet import keys

# N = 2^18, r = 8, p = 1 (256 MiB), as for the wallet's keystores; tests make it cheaper.
OPSLIMIT, MEMLIMIT = 1 << 23, 1 << 28


def load_or_create(name: str, password: str | None = None) -> PrivateKey:
    """The encryption key of the wallet key `name`, made at its first use. Raises UserError if the password is wrong."""
    path = _path(name)
    if password is None:
        password = keys.read_password(f"Password for key '{name}'")
    if not path.exists():
        keys.load(name, password)  # one password for both: a mistyped one must not lock this key away
        key = PrivateKey.generate()
        if _save(path, key, password):
            return key
    try:
        stored = read_json(path.read_text(encoding="ascii"))
        salt, box = bytes.fromhex(stored["salt"]), bytes.fromhex(stored["box"])
        cost = (stored["opslimit"], stored["memlimit"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not an encryption key: {error}", "restore it from a backup") from error
    try:
        return PrivateKey(_box(password, salt, *cost).decrypt(box))
    except CryptoError as error:
        raise UserError(
            f"wrong password for the encryption key '{name}'",
            f"it was encrypted with the wallet key's password: {path}",
        ) from error


def unlock(name: str) -> tuple[LocalAccount, PrivateKey]:
    """The wallet key `name` and its encryption key, for one password. Raises UserError."""
    keys.address(name)  # before anybody is asked for the password of a key that isn't there
    password = keys.read_password(f"Password for key '{name}'")
    return keys.load(name, password), load_or_create(name, password)


def reencrypt(name: str, old: str, new: str) -> None:
    """Encrypts the key anew, if there is one. May be given again after an interruption."""
    path = _path(name)
    if not path.exists():
        return
    try:
        key = load_or_create(name, old)
    except UserError:
        load_or_create(name, new)  # a former try has come so far
        return
    with keys.private_scratch(path, _sealed(key, new)) as scratch:
        os.replace(scratch, path)


def write_encryption_key(folder: Path, name: str, key: PrivateKey, password: str) -> None:
    """As `keys.write_wallet_key`."""
    path = folder / "encryption" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with keys.private_scratch(path, _sealed(key, password, 1 << 15, 1 << 24)) as scratch:
        os.replace(scratch, path)


def _sealed(key: PrivateKey, password: str, opslimit: int | None = None, memlimit: int | None = None) -> dict[str, Any]:
    salt = secrets.token_bytes(pwhash.scrypt.SALTBYTES)
    opslimit, memlimit = opslimit or OPSLIMIT, memlimit or MEMLIMIT
    box = _box(password, salt, opslimit, memlimit).encrypt(bytes(key))
    cost = {"version": 1, "kdf": "scrypt", "opslimit": opslimit, "memlimit": memlimit}
    return cost | {"salt": salt.hex(), "box": bytes(box).hex()}


def _save(path: Path, key: PrivateKey, password: str) -> bool:
    """Appears whole, and never overwrites: of two processes that make one, the first wins. Whether it was this one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with keys.private_scratch(path, _sealed(key, password)) as scratch:
        try:
            os.link(scratch, path)
        except FileExistsError:
            return False
    return True


def _box(password: str, salt: bytes, opslimit: int, memlimit: int) -> SecretBox:
    return SecretBox(pwhash.scrypt.kdf(SecretBox.KEY_SIZE, password.encode(), salt, opslimit, memlimit))


def _path(name: str) -> Path:
    keys.address(name)  # refuses names that are no key's
    return home() / "encryption" / f"{name}.json"
