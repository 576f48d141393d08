"""The unit that `gpumarket provider systemd` prints."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import UserError
from worker.onboarding.systemd import unit


def make(**changes: object) -> str:
    given = {"password_file": Path("/etc/gpumarket/password"), "user": "gpu", "stop_seconds": 90.0}
    return unit(Path(sys.executable), ["lot0", "lot1"], Path("/var/lib/gpumarket"), **(given | changes))  # type: ignore[arg-type]


def settings(text: str) -> dict[str, list[str]]:
    """Of the service; a name may come more than once."""
    section, found = "", dict[str, list[str]]()
    for line in text.splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_password_is_systemds_to_read() -> None:
    service = settings(make())
    assert service["LoadCredential"] == ["password:/etc/gpumarket/password"]
    assert "GPUMARKET_PASSWORD_FILE=%d/password" in service["Environment"]
    assert service["ExecStart"] == [f"{sys.executable} provider start --key lot0 --key lot1 --json-logs"]
    assert (service["User"], service["TimeoutStopSec"]) == (["gpu"], ["90"])


def test_nothing_that_would_take_the_sandbox_away() -> None:
    text = make()
    for name in ("RestrictNamespaces", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelTunables", "ProtectClock"):
        assert f"{name}=" not in text
    assert "ProtectHome=yes" in text
    assert "ProtectHome=no" in unit(
        Path("/opt/bin/gpumarket"), ["a"], Path("/home/me/.gpumarket"), password_file=None, user="me", stop_seconds=1
    )


def test_python_in_somebodys_home_can_be_read() -> None:
    assert "ProtectHome=no" in make(python=(Path("/root/python"),))


def test_root_and_podman_keep_the_privileges_that_make_their_sandbox() -> None:
    found = {
        (user, podman): (settings(text).get("NoNewPrivileges"), settings(text).get("CapabilityBoundingSet"))
        for user in ("gpu", "root", None)
        for podman in (False, True)
        for text in [make(user=user, podman=podman)]
    }
    assert found == {
        ("gpu", False): (["yes"], [""]),
        ("gpu", True): (None, None),
        ("root", False): (["yes"], None),
        ("root", True): (["yes"], None),
        (None, False): (["yes"], None),
        (None, True): (None, None),
    }


def test_a_users_own_unit_has_no_user_and_no_password_file_if_none_is_given() -> None:
    text = make(user=None, password_file=None)
    assert "User=" not in text and "LoadCredential" not in text and "WantedBy=default.target" in text
    configparser.ConfigParser(strict=False, interpolation=None).read_string(text)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("user", ["nobody", None])
def test_systemd_accepts_it(tmp_path: Path, user: str | None) -> None:
    file = tmp_path / "gpumarket-provider.service"
    file.write_text(make(user=user))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", str(file)], capture_output=True, text=True, timeout=60
    )
    assert verified.returncode == 0, verified.stderr
    assert "Unknown" not in verified.stderr


def test_a_path_that_would_break_the_file_is_refused() -> None:
    with pytest.raises(UserError, match="can't stand in a systemd unit"):
        make(password_file=Path("/etc/pass word\nUser=root"))
