"""The README's way without our command line: a quote, signed by Foundry's `cast`, posted with curl."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.api.problems import Code
from market.models import BidRow, BlobRow
from tests.integration.conftest import TOKEN
from tests.integration.market_stage import Stage, stage

__all__ = ["stage"]

README = Path(__file__).parents[2] / "README.md"
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


@needs_tools
def test_the_readme_literally(stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "somewhere"
    folder.mkdir()
    (folder / "recipe.py").write_bytes(b"class Mine: ...\n")
    # The client of the stage, as an account of Foundry.
    home = tmp_path / "home"
    environment = {"HOME": str(home), "PATH": f"{CAST.parent}:/usr/local/bin:/usr/bin:/bin", "MARKET": stage.api.url}
    home.mkdir()
    key = stage.client.key.hex().removeprefix("0x")
    subprocess.run(
        [str(CAST), "wallet", "import", "me", "--private-key", key, "--unsafe-password", PASSWORD],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    body, shell = commands()
    shell = shell.replace("--account me", f"--account me --password '{PASSWORD}'")  # it would ask
    script = f"set -e\n{body}\n{shell}"
    before = stage.count(BlobRow)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment | {"CLIENT": stage.client.address}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert stage.count(BlobRow) == before + 1
    assert stage.count(BidRow) == 1, done.stdout
    (job,) = stage.api.jobs(client=stage.client.address)
    assert job.bid.signer(stage.domain, job.signature) == stage.client.address
    assert job.bid.max_price == TOKEN
    assert (job.status, job.accepted) == ("pending", 0)
    assert job.id in done.stdout
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
