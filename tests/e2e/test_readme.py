"""The README's paths, as they stand: an operator's, a provider's, a client's, and the one without our command line."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support import ROOT
from tests.support.terminals import Terminals, blocks

pytestmark = pytest.mark.timeout(1500)

needs_tools = pytest.mark.skipif(
    not (os.environ.get("CI") or (shutil.which("curl") and shutil.which("jq"))), reason="needs curl and jq"
)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminals]:
    """A market with an approver and a provider, as the README has them made."""
    _, chain, market, approver, arbiter = blocks("README.md", "## A market of your own, to try things on")
    provider, _ = blocks("README.md", "## First ten minutes as a provider")
    with Terminals(tmp_path_factory.mktemp("town")) as town:
        town.start(chain, lambda log: "Next, in another terminal" in log)
        town.start(market, lambda log: "rules     " in log)
        town.start(approver, lambda log: "Approver 0x" in log)
        town.start(arbiter, lambda log: "Arbiter 0x" in log)
        town.start(provider, lambda log: "agent.asked" in log or "ask." in log)
        yield town


@needs_tools
@pytest.mark.long
def test_the_paths_as_they_stand(town: Terminals) -> None:
    """One test: each part of it on a process of its own would make a town of its own."""
    shown = town.run(blocks("README.md", "## First ten minutes as a client")[0])
    assert "6 reported, 6 approved, 6 paid of 6" in shown and "checkpoint 6, verified up to tip" in shown
    (state,) = (town.folder / "checkpoints").glob("*.safetensors")
    assert state.stat().st_size > 0

    assert "rig1" in town.run(blocks("README.md", "## First ten minutes as a provider")[1])

    money, recipe, after = blocks("docs/http.md", "## curl, jq and cast")
    token = blocks("docs/access.md", "## Tokens")[0].partition("\n}\n")[0] + "\n}"
    quote, hand_in = blocks("README.md", "### Without our command line")
    shown = town.run(money, recipe, "ACCOUNT=$CLIENT", token, quote, hand_in, after)
    assert "\ndone \n" in shown
    assert (town.folder / "checkpoint.safetensors").stat().st_size > 0


@pytest.mark.long
@pytest.mark.parametrize("library", ["viem", "ethers"])
def test_the_same_from_node(town: Terminals, library: str) -> None:
    folder = town.folder / library
    folder.mkdir()
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    market, *programs = blocks("docs/http.md", "## From Node")
    (program,) = [one for one in programs if f'from "{library}"' in one]
    (folder / "market.mjs").write_text(market)
    (folder / "first.mjs").write_text(program)
    recipe = blocks("docs/http.md", "## curl, jq and cast")[1]
    shown = town.run(f"cd {library}", recipe, "node first.mjs")
    assert "\ndone" in shown and (folder / "checkpoint.safetensors").stat().st_size > 0
