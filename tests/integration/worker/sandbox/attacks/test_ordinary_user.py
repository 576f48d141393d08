"""The attacks once more, by a worker that is no root."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

USER = 12_345  # an ordinary one, which need not have an account

# Where being root makes the greatest difference.
FEW = "nothing_outside or ForkBomb or dies_with or (are_small and TcpBuffers) or InFlight"


@pytest.mark.skipif(os.geteuid() != 0, reason="all attacks run as an ordinary user already")
@pytest.mark.parametrize("which", [FEW, pytest.param("test", marks=pytest.mark.long)], ids=["few", "all"])
def test_as_an_ordinary_user(tmp_path: Path, which: str) -> None:
    """The attacks once more, by a worker that is no root.

    Where Python or this checkout is below a folder that only root may enter, the user gets a view of the machine in
    which these folders can be walked through. It has no capability there, and builds its sandbox itself.
    """
    user = tmp_path.parent / f"{tmp_path.name}-user"
    user.mkdir()
    os.chown(user, USER, USER)
    command = [
        "bwrap",
        "--dev-bind",
        "/",
        "/",
        "--die-with-parent",
        "--cap-add",
        "CAP_SETUID",
        "--cap-add",
        "CAP_SETGID",
    ]
    command += _walkable([Path(sys.base_prefix), Path(sys.prefix), ROOT, user])
    command += ["--setenv", "HOME", str(user), "--setenv", "TMPDIR", str(user), "--"]
    command += ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--inh-caps=-all"]
    command += ["--bounding-set=-all", sys.executable, "-m", "pytest", "-n", "0", "-q", "-o", f"cache_dir={user}/cache"]
    command += [
        "-m",
        "as_anybody and not podman",
        "-k",
        which,
        "--basetemp",
        str(user / "tests"),
        str(Path(__file__).parent),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    shutil.rmtree(user, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-2000:]


def _walkable(folders: list[Path]) -> list[str]:
    """Options of bubblewrap: closed folders above these become open ones with only these in them."""
    closed = {parent for folder in folders for parent in folder.parents if parent.stat().st_mode & 0o005 != 0o005}
    options: list[str] = []
    tops = sorted(one for one in closed if not any(other in one.parents for other in closed))
    for top in tops:
        options += ["--perms", "0755", "--tmpfs", str(top)]
        for folder in sorted({one for one in folders if one.is_relative_to(top)}):
            for parent in reversed([one for one in folder.parents if one.is_relative_to(top) and one != top]):
                options += ["--perms", "0755", "--dir", str(parent)]
            options += ["--bind", str(folder), str(folder)]
    return options
