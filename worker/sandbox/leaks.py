"""Tries from inside of a sandbox what it must not let out: network, home, other processes, the worker's variables."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from contracts.settings import home
from worker.sandbox.bubblewrap import Sandbox
from worker.sandbox.hiding.view import Program

# Says on standard output what it could do. Standard library only; it must not trust the file system to be there.
_PROBE = """
import os, socket
try:
    socket.create_connection(("1.1.1.1", 53), 2); print("reached the network")
except OSError: pass
for port in PORTS:
    try:
        socket.create_connection(("127.0.0.1", port), 2); print("reached this machine's services")
    except OSError: pass
for path in PATHS:
    if os.path.exists(path): print("saw", path)
if "GPUMARKET_SELFTEST" in os.environ or "GPUMARKET_PASSWORD" in os.environ: print("saw the worker's variables")
if len([name for name in os.listdir("/proc") if name.isdigit()]) > 8: print("saw other processes")
try:
    open("/usr/gpumarket-selftest", "w"); print("wrote to /usr")
except OSError: pass
print("done")
"""


def sandbox_leaks(runtime: Sandbox) -> list[str]:
    """What a program in this sandbox could see or reach that it must not; empty if it is tight."""
    with tempfile.TemporaryDirectory(dir=home()) as secret, socket.create_server(("127.0.0.1", 0)) as server:
        probe = (
            f"PORTS = {[server.getsockname()[1]]}\nPATHS = {[secret, str(home()), str(Path.home() / '.ssh')]}\n{_PROBE}"
        )
        # Never taken back: a thread that lists the variables (as HTTP libraries do, for proxies) fails if one goes.
        os.environ["GPUMARKET_SELFTEST"] = "1"
        try:
            process = runtime.start(Program([sys.executable, "-S", "-c", probe]))
            try:
                said, complaint = process.communicate(timeout=60)
            finally:
                runtime.end(process)
        except subprocess.TimeoutExpired:
            return ["did not end"]
    lines = said.decode(errors="replace").splitlines()
    if not lines or lines.pop() != "done":
        return [f"broke: {complaint.decode(errors='replace').strip()[-200:]}"]
    return lines
