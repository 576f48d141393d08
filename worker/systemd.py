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
Restart=on-failure
RestartSec=10
{user}
NoNewPrivileges=yes
UMask=0077
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
CapabilityBoundingSet=
"""


def unit(
    command: Path,
    lots: Sequence[str],
    home: Path,
    *,
    password_file: Path | None,
    user: str | None,
    stop_seconds: float,
) -> str:
    """`user`: whom a system unit runs as; None makes a user's own unit. Raises UserError for what it can't hold."""
    for path in (command, home, *([password_file] if password_file else [])):
        if not re.fullmatch(r"/[\w./@+-]*", str(path)):
            raise UserError(f"{str(path)!r} can't stand in a systemd unit", "use paths of letters, digits, and ._@+-")
    secret = ""
    if password_file:
        # systemd reads it as root, and gives it to this service alone.
        secret = f"LoadCredential=password:{password_file}\nEnvironment=GPUMARKET_PASSWORD_FILE=%d/password\n"
    hardening = ""
    if user is not None:
        inside = home.is_relative_to("/home") or home.is_relative_to("/root")
        hardening = _SYSTEM_ONLY.format(home=home, protect_home="no" if inside else "yes")
    keys = " ".join(f"--key {lot}" for lot in lots)
    return _UNIT.format(
        lots=", ".join(lots),
        command=f"{command} provider start {keys} --json-logs",
        home=home,
        secret=secret,
        stop_seconds=int(stop_seconds),
        user=f"User={user}" if user else "",
        hardening=hardening,
        target="multi-user.target" if user else "default.target",
    ).replace("\n\n\n", "\n\n")
