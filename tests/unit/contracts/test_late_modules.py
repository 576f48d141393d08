"""Modules that are imported once they are needed: in programs of their own, as they begin with none."""

import subprocess
import sys

import pytest

PREPARED = """
import sys
import contracts
from contracts.late_modules import LateModule
from eth_account import Account
from eth_keyfile import create_keyfile_json, decode_keyfile_json
def is_late(): return isinstance(sys.modules["py_ecc.bls"], LateModule)
assert is_late()
"""


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", PREPARED + program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_wallets_keystore_needs_no_pairings() -> None:
    run("""
account = Account.create()
assert Account.decrypt(Account.encrypt(account.key, "pw", kdf="scrypt", iterations=2), "pw") == account.key
assert is_late()
""")


def test_a_validators_keystore_gets_them() -> None:
    run("""
keystore = create_keyfile_json(bytes(31) + b"1", b"long enough", version=4, iterations=2)
assert decode_keyfile_json(keystore, b"long enough") == bytes(31) + b"1"
from py_ecc.bls import G2ProofOfPossession
assert keystore["pubkey"] == G2ProofOfPossession.SkToPk(ord("1")).hex()
assert not is_late()
""")


@pytest.mark.parametrize(
    "statement",
    [
        "from py_ecc.bls12_381 import curve_order, add",
        "import py_ecc.bls12_381.bls12_381_curve",
        "from py_ecc.bls12_381 import bls12_381_curve",
        "import py_ecc; py_ecc.bls12_381.add",
    ],
)
def test_it_is_the_module_itself_for_whoever_wants_more(statement: str) -> None:
    run(f"""
order = sys.modules["py_ecc.bls12_381"].curve_order
{statement}
found = sys.modules["py_ecc.bls12_381"]
assert not isinstance(found, LateModule) and found.curve_order == order
part = sys.modules["py_ecc.bls12_381.bls12_381_curve"]
assert found.bls12_381_curve is part and part.add is found.add and part.__spec__.name == part.__name__
import py_ecc
assert py_ecc.bls12_381 is found
""")
