"""A recipe can't tell where and when it runs, as far as a sandbox without a kernel of its own can hide it: else it
could train one thing for its provider, and another for whoever replays it. docs/environments.md says what still shows.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.ordinary_user import as_ordinary_user

DAYS = 10
# A machine of another name, booted at another time, whose worker has other limits and a language and zone of its own.
ELSEWHERE = ["unshare", "--uts", "--time", "--boottime", str(DAYS * 86_400), "--monotonic", "99999", "--fork"]
ELSEWHERE += ["sh", "-c", 'hostname elsewhere; ulimit -s 16384; umask 077; exec "$@"', "sh"]


def found_out(home: Path, before: list[str], **variables: str) -> Any:
    """By a recipe that is run from this home, by a command that begins so."""
    command = [*before, sys.executable, "-m", "tests.support.curious_run", str(home / "lease")]
    environment = os.environ | {"HOME": str(home), "GPUMARKET_HOME": str(home / "gpumarket")} | variables
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else, on a machine of another name")
def test_two_homes_two_users_two_names_and_two_days_look_the_same(tmp_path: Path) -> None:
    here = found_out(tmp_path / "home", [])
    said = json.dumps(here)
    for secret in (str(tmp_path), str(ROOT), Path("/proc/sys/kernel/random/boot_id").read_text()):
        assert secret.strip() not in said, secret
    assert (here["places"]["cwd"][0], here["who"]["ids"][:2]) == ("/out", [[65534] * 3] * 2)
    assert "/proc/uptime" in here["machine"]["proc"]
    assert "1000\n" in here["who"]["maps"]  # its oom_score_adj: what the kernel ends first

    elsewhere = found_out(tmp_path / "other", ELSEWHERE, TZ="Asia/Tokyo", LANG="de_DE.UTF-8", SECRET="1")
    assert elsewhere == here
    user = tmp_path.parent / f"{tmp_path.name}-user"
    somebody = found_out(user, as_ordinary_user(user), USER="somebody", LOGNAME="somebody")
    assert somebody == here
