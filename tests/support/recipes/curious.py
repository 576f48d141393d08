"""A recipe that prints all it can find out of where and when it runs, as a line of JSON."""

import getpass
import grp
import json
import locale
import os
import platform
import pwd
import resource
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

import torch
from torch import nn

# What still shows, and is told in docs/environments.md. Not asked for here, as it may differ: the clocks, what the
# processor says of itself, the cores that are allowed, the mounts' sources, free space, numbers of files.
STATUS = ("Cpus_allowed", "Mems_allowed", "Vm", "Rss", "voluntary", "nonvoluntary", "Threads", "Speculation", "THP",
          "FDSize", "SigQ", "HugetlbPages", "untag", "x86_Thread")  # fmt: skip
TREES = ("/job", "/start.safetensors", "/env/pyvenv.cfg")


def or_error(ask):
    try:
        return ask()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def text(path):
    return or_error(lambda: Path(path).read_bytes().decode(errors="replace"))


def stats(path):
    found = os.stat(path)
    return [oct(found.st_mode), found.st_uid, found.st_gid, found.st_size if os.path.isfile(path) else 0,
            found.st_mtime_ns, found.st_nlink if os.path.isfile(path) else 0]  # fmt: skip


def names_below_proc():
    """Files of /proc that are no process's, and what is in them."""
    found = {}
    for folder, _, files in os.walk("/proc"):
        parts = Path(folder).parts
        if len(parts) > 2 and ((parts[2].isdigit() and parts[2] != "1") or parts[2] in ("self", "thread-self")):
            continue
        for name in (name for name in files if name != "mounts"):
            found[f"{folder}/{name}"] = text(f"{folder}/{name}")
    return found


def status():
    lines = text("/proc/self/status").splitlines()
    return [line for line in lines if not line.startswith(STATUS)]


def places():
    return {
        "argv": [sys.argv, sys.orig_argv, sys.executable, sys.prefix, sys.base_prefix, sys.path],
        "files": [__file__, torch.__file__, os.__file__, sys.modules["worker"].__file__, tempfile.gettempdir()],
        "cwd": [os.getcwd(), os.path.expanduser("~"), sysconfig.get_paths(), os.readlink("/proc/self/exe")],
        "root": {path: sorted(os.listdir(path)) for path in ("/", "/etc", "/dev", "/job", "/out", "/tmp", "/env")},
        "stats": {str(path): stats(path) for top in TREES if os.path.exists(top) for path in
                  [Path(top), *sorted(Path(top).rglob("*"))]},
        "out": stats("."),
        "mount points": sorted(line.split()[4] for line in text("/proc/self/mountinfo").splitlines()),
    }  # fmt: skip


def who():
    return {
        "ids": [os.getresuid(), os.getresgid(), os.getgroups(), os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0)],
        "names": [or_error(getpass.getuser), or_error(lambda: pwd.getpwuid(os.getuid())),
                  or_error(lambda: grp.getgrgid(os.getgid())), or_error(os.getlogin)],
        "id": or_error(lambda: subprocess.run(["id"], capture_output=True, text=True).stdout),
        "maps": [text(f"/proc/self/{name}") for name in ("uid_map", "gid_map", "setgroups", "cgroup", "loginuid",
                                                         "sessionid", "oom_score_adj", "cmdline", "environ")],
        "status": status(),
        "ps": [name for name in os.listdir("/proc") if name.isdigit()],
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT_" in name},
        "umask": os.umask(0o022),
    }  # fmt: skip


def machine():
    return {
        "host": [socket.gethostname(), or_error(socket.getfqdn), platform.node(), os.uname().nodename],
        "interfaces": or_error(lambda: [name for _, name in socket.if_nameindex()]),
        "proc": names_below_proc(),
        "power": or_error(lambda: os.listdir("/sys/class/power_supply")),
        "ids": [text(path) for path in ("/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostname", "/etc/hosts",
                                        "/etc/os-release", "/etc/localtime", "/etc/passwd", "/etc/resolv.conf")],
        "cpus": [os.cpu_count(), torch.get_num_threads(), torch.get_num_interop_threads(), threading.stack_size()],
        "memory": os.sysconf("SC_PAGE_SIZE"),
        "zone": [time.tzname, time.timezone, os.environ.get("TZ")],
        "locale": [locale.getlocale(), sys.getfilesystemencoding(), sys.getdefaultencoding(), sys.stdout.encoding],
        "variables": dict(os.environ),
        "flags": [str(sys.flags), hash("a string"), sys.stdin and sys.stdin.isatty(), sys.stdout.isatty()],
    }  # fmt: skip


class Curious:
    def __init__(self, config, data):
        self.data, self.model = {name: str(path) for name, path in data.items()}, nn.Linear(4, 4)

    def step(self, i):
        if i == 4:
            print(json.dumps({"places": places(), "who": who(), "machine": machine(), "data": self.data}, default=str))
        return {"loss": self.model(torch.randn(2, 4)).sum().item()}

    def state_dict(self):
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
