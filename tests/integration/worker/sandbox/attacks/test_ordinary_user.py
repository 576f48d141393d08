"""The attacks once more, by a worker that is no root."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.ordinary_user import as_ordinary_user

# Where being root makes the greatest difference.
FEW = "nothing_outside or ForkBomb or dies_with or (are_small and TcpBuffers) or InFlight"


@pytest.mark.skipif(os.geteuid() != 0, reason="all attacks run as an ordinary user already")
@pytest.mark.parametrize("which", [FEW, pytest.param("test", marks=pytest.mark.long)], ids=["few", "all"])
def test_as_an_ordinary_user(tmp_path: Path, which: str) -> None:
    user = tmp_path.parent / f"{tmp_path.name}-user"
    command = [*as_ordinary_user(user), sys.executable, "-m", "pytest", "-n", "0", "-q"]
    command += ["-o", f"cache_dir={user}/cache", "-m", "as_anybody and not podman", "-k", which]
    command += ["--basetemp", str(user / "tests"), str(Path(__file__).parent)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    shutil.rmtree(user, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-2000:]
