"""The ways without our command line, as README and docs/access.md tell them: signed by `cast`, sent by curl."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.api.problems import Code
from contracts.job.file import hash_file
from market.store.models import BidRow, BlobRow
from tests.support import ROOT
from tests.support.devnet import TOKEN
from tests.support.market_parts import make_spec
from tests.support.served_market import Stage

pytestmark = pytest.mark.mostly_sqlite

README = ROOT / "README.md"
ACCESS = ROOT / "docs" / "access.md"
CAST = Path(sys.executable).with_name("cast")
PASSWORD = "open sesame"  # of a key that lives as long as the test

needs_tools = pytest.mark.skipif(
    not (CAST.exists() and shutil.which("curl") and shutil.which("jq")), reason="needs cast, curl and jq"
)


def commands() -> tuple[str, str]:
    """The README's quote.json, and its shell commands."""
    section = README.read_text(encoding="utf-8").partition("### Without our command line")[2].partition("\n## ")[0]
    body, shell = re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)
    return body, shell


def access_commands() -> tuple[str, str]:
    """Those of docs/access.md: how to make a token and upload with it, and how to read."""
    token, reading = re.findall(r"```\n(token\(\).*?|curl -s \$MARKET/v1/blobs.*?)```", ACCESS.read_text(), re.DOTALL)
    return token, reading


def run_shell(stage: Stage, folder: Path, script: str, **variables: str) -> str:
    """In `folder`, with the stage's client as Foundry's account `me`. Returns what it printed."""
    home = folder / "home"
    environment = {"HOME": str(home), "PATH": f"{CAST.parent}:/usr/local/bin:/usr/bin:/bin", "MARKET": stage.api.url}
    home.mkdir(exist_ok=True)
    key = stage.client.key.hex().removeprefix("0x")
    if not (home / ".foundry").exists():
        subprocess.run(
            [str(CAST), "wallet", "import", "me", "--private-key", key, "--unsafe-password", PASSWORD],
            env=environment, check=True, capture_output=True,
        )  # fmt: skip
    script = script.replace("--account me", f"--account me --password '{PASSWORD}'")  # it would ask
    done = subprocess.run(
        ["bash", "-c", f"set -e\n{script}"], cwd=folder, env=environment | variables, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_tools
def test_access_literally(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "recipe.py").write_bytes(b"class Mine: ...\n")
    token, reading = access_commands()
    run_shell(stage, tmp_path, token, ACCOUNT=stage.client.address)
    ref = hash_file(tmp_path / "recipe.py")
    assert stage.api_of(stage.client).has_blob(ref.sha256)
    job = stage.api.post_bid(stage.bid(spec=make_spec(files={"recipe.py": ref}))).id
    shown = run_shell(stage, tmp_path, f"{token}\n{reading}", ACCOUNT=stage.client.address, JOB=job)
    assert hash_file(tmp_path / "copy.py") == ref
    assert '{"items":[],"next":null}' in shown


@needs_tools
def test_the_readme_literally(stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "somewhere"
    folder.mkdir()
    (folder / "recipe.py").write_bytes(b"class Mine: ...\n")
    body, shell = commands()
    token = access_commands()[0].partition("\n}\n")[0] + "\n}\n"  # the README refers to it
    before = stage.count(BlobRow)
    client = stage.client.address
    shown = run_shell(stage, folder, f"{token}\n{body}\n{shell}", CLIENT=client, ACCOUNT=client)
    assert stage.count(BlobRow) == before + 1
    assert stage.count(BidRow) == 1, shown
    (job,) = stage.api.jobs(client=stage.client.address)
    assert job.bid.signer(stage.domain, job.signature) == stage.client.address
    assert job.bid.max_price == TOKEN
    assert (job.status, job.accepted) == ("pending", 0)
    assert job.id in shown
    signed = json.loads((folder / "bid.json").read_text())
    assert signed == job.bid.typed_data(stage.domain)


@needs_tools
def test_a_changed_bid_is_refused(stage: Stage, tmp_path: Path) -> None:
    """Signed by cast, and then made dearer."""
    bid = stage.bid().bid
    (tmp_path / "bid.json").write_text(json.dumps(bid.typed_data(stage.domain)))
    signing = [
        str(CAST),
        "wallet",
        "sign",
        "--data",
        "--from-file",
        "bid.json",
        "--private-key",
        stage.client.key.hex(),
    ]
    signature = subprocess.run(signing, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()
    body = stage.bid().model_copy(update={"signature": signature})
    dearer = body.model_copy(update={"bid": bid.model_copy(update={"max_price": bid.max_price + 1})})
    stage.refuses(lambda: stage.api.post_bid(dearer), 422, Code.ORDER_SIGNATURE_INVALID)
    assert stage.api.post_bid(body).bid == bid
