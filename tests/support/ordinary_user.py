"""For tests that root runs: a command run by an ordinary user."""

import os
import sys
from pathlib import Path

from tests.support import ROOT

USER = 12_345  # which need not have an account


def as_ordinary_user(folder: Path) -> list[str]:
    """What to put before a command. Makes `folder`, which is the user's home.

    Where Python or this checkout is below a folder that only root may enter, the user gets a view of the machine in
    which these folders can be walked through. It has no capability there, and builds its sandboxes itself.
    """
    folder.mkdir()
    os.chown(folder, USER, USER)
    command = ["bwrap", "--dev-bind", "/", "/", "--die-with-parent"]
    command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    command += _walkable([Path(sys.base_prefix), Path(sys.prefix), ROOT, folder])
    command += ["--setenv", "HOME", str(folder), "--setenv", "TMPDIR", str(folder), "--"]
    command += ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--inh-caps=-all"]
    return [*command, "--bounding-set=-all"]


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
