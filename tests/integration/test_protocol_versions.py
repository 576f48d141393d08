"""A market or an escrow of another version of the protocol: every program says so, in one sentence."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from contracts.api.protocol import PROTOCOL, OtherProtocol
from contracts.chain.client import Chain, connect
from contracts.cli import main
from contracts.errors import UserError
from contracts.orders import Domain
from contracts.wallet import keys
from market.api import middleware
from market.runtime import context
from tests.support.whole_market import PASSWORD, StageOf, stage_of, wait_for

__all__ = ["stage_of"]
pytestmark = pytest.mark.mostly_sqlite

COMMANDS = [
    "job list", "job show {job}", "job pull {job} {home}/pulled", "job cancel {job} --yes", "job cost {job}",
    "offer list", "epoch list", "epoch show 1", "epoch verify 1", "provider estimate",
]  # fmt: skip


def refused(command: str) -> str:
    done = CliRunner().invoke(main.app, command.split())
    assert done.exit_code == 1, done.output
    return done.output


@pytest.mark.parametrize(("spoken", "cure"), [(1, "Use a market of version 2"), (3, "Install the newest gpumarket")])
def test_a_market_of_another_version_is_told_by_every_program(
    stage_of: StageOf, monkeypatch: pytest.MonkeyPatch, spoken: int, cure: str
) -> None:
    stage = stage_of()
    assert stage.market.info().protocol == PROTOCOL
    job = stage.submit()
    for module in (middleware, context):
        monkeypatch.setattr(module, "PROTOCOL", spoken)
    monkeypatch.setenv("GPUMARKET_MARKET_URL", stage.market.url)
    sentence = f"the market at {stage.market.url} speaks version {spoken} of the protocol, this program version 2"
    for command in COMMANDS:
        output = refused(command.format(job=job, home=stage.home))
        assert sentence in " ".join(output.split()) and cure in output, output
    with pytest.raises(OtherProtocol, match=sentence):  # one that is under way
        list(stage.market.jobs())

    stage.agent_process()
    keys.save("approver", stage.approver, PASSWORD, scrypt_n=2)
    command = [sys.executable, "-m", "contracts.cli.main", "approver", "start", "--key", "approver"]
    environment = os.environ | {"GPUMARKET_PASSWORD": PASSWORD}
    with (stage.home / "approver.log").open("wb") as file:
        stage.processes.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))
    wait_for("the agent", lambda: sentence in stage.log())
    wait_for("the approver", lambda: sentence in (stage.home / "approver.log").read_text())


def test_an_escrow_of_another_version_is_told(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    found = chain.domain.as_dict()["version"]
    later = chain.domain.as_dict() | {"version": "77"}
    monkeypatch.setattr(Domain, "as_dict", lambda _: later)
    with pytest.raises(
        UserError, match=f"the escrow {chain.escrow.address} is of version '{found}' of 'gpumarket'"
    ) as caught:
        connect(chain.settings)
    assert "this program signs for version '77'" in caught.value.message and caught.value.hint
