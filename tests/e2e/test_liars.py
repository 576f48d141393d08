"""Each kind of liar, against real processes: it must not gain, and nobody honest may lose more than docs say."""

import subprocess

import pytest

from tests.liars.__main__ import KINDS
from tests.support import ROOT

DEMO = ROOT / "scripts" / "demo"


@pytest.mark.long  # one of them is part of the demo
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_does_not_pay(kind: str) -> None:
    done = subprocess.run([DEMO, "--cheat", kind], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    # Whose approver is the liar's friend, that client pays for one lease: docs/audits.md.
    end = "it paid no more than docs say" if kind == "colluding-approver" else "it did not pay"
    assert f"{kind}: {end}" in done.stdout


def test_a_kind_that_does_not_exist() -> None:
    done = subprocess.run([DEMO, "--cheat", "honest"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "no kind of liar is named 'honest'; there are: all, list, " in done.stderr
