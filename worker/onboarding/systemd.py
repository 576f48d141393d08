"""A systemd unit for `gpumarket provider start`. Pure: text comes out."""

import re
from collections.abc import Sequence
from pathlib import Path

from contracts.errors import UserError

# Less than systemd could do: bubblewrap needs user namespaces, a host name and a /proc of its own, which
# RestrictNamespaces, ProtectHostname, and all that covers parts of /proc (ProtectKernelLogs, ProtectKernelTunables)
# would take away; and ProtectClock hides all devices, GPUs too.
_UNIT = """\
# gpumarket provider: {lots}
[Unit]
Description=gpumarket provider ({lots})
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
Environment=GPUMARKET_HOME={home}
{secret}# The first SIGTERM hands leases over; afterwards all that is left is killed.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec={stop_seconds}
Delegate=memory
Restart=on-failure
RestartSec=10
{user}
{privileges}UMask=0077
LimitCORE=0
LimitNOFILE=65536
{hardening}
[Install]
WantedBy={target}
"""
_SYSTEM_ONLY = """\
ProtectSystem=full
ProtectHome={protect_home}
ReadWritePaths={home}
ProtectKernelModules=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
"""


def unit(
    command: Path,
    lots: Sequence[str],
    home: Path,
    *,
    password_file: Path | None,
    user: str | None,
    stop_seconds: float,
    python: Sequence[Path] = (),
    podman: bool = False,
) -> str:
    """`user`: whom a system unit runs as; None makes a user's own unit. `python`: where it is installed. `podman`: a
    lot uses that. Raises UserError for what it can't hold."""
    for path in (command, home, *([password_file] if password_file else [])):
        if not re.fullmatch(r"/[\w./@+-]*", str(path)):
            raise UserError(f"{str(path)!r} can't stand in a systemd unit", "use paths of letters, digits, and ._@+-")
    secret = ""
    if password_file:
        # systemd reads it as root, and gives it to this service alone.
        secret = f"LoadCredential=password:{password_file}\nEnvironment=GPUMARKET_PASSWORD_FILE=%d/password\n"
    hardening = ""
    if user is not None:
        inside = any(path.is_relative_to(top) for path in (home, command, *python) for top in ("/home", "/root"))
        hardening = _SYSTEM_ONLY.format(home=home, protect_home="no" if inside else "yes")
    # An ordinary user's podman is helped by newuidmap, which is root's; and who is root makes the sandbox as root.
    privileges = "" if podman and user != "root" else "NoNewPrivileges=yes\n"
    if user is not None and user != "root" and not podman:
        hardening += "CapabilityBoundingSet=\n"
    keys = " ".join(f"--key {lot}" for lot in lots)
    return _UNIT.format(
        lots=", ".join(lots),
        command=f"{command} provider start {keys} --json-logs",
        home=home,
        secret=secret,
        stop_seconds=int(stop_seconds),
        user=f"User={user}" if user else "",
        privileges=privileges,
        hardening=hardening,
        target="multi-user.target" if user else "default.target",
    ).replace("\n\n\n", "\n\n")
