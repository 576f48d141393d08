"""Recipes that attack the machine they run on. Copied into a job's folder as recipe.py; `config` has their targets."""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import torch
from torch import nn


class Attack:
    """Trains honestly until step `config["at"]`; step 1 is run once more before, to count its work."""

    def __init__(self, config, data):
        self.config, self.data = config, data
        self.model = nn.Linear(4, 4)

    def step(self, i):
        if i == self.config.get("at", 2):
            self.attack(i)
        return {"loss": self.model(torch.randn(2, 4)).sum().item()}

    def attack(self, i):
        pass

    def state_dict(self):
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])


LIBC = ctypes.CDLL(None, use_errno=True)
# Number on x86_64, arguments. Who may do it succeeds or is told something else than that it is refused; where it
# would harm this machine, the arguments are wrong.
CALLS = {
    "ptrace": (101, 0, 0, 0, 0),  # PTRACE_TRACEME
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "keyctl": (250, 0, ctypes.c_long(-4), 0),  # KEYCTL_GET_KEYRING_ID of the user's keyring
    "add_key": (248, b"user", b"gpumarket", b"x", 1, ctypes.c_long(-4)),
    "request_key": (249, b"user", b"gpumarket", None, 0),
    "unshare user": (272, 0x10000000),
    "unshare mounts": (272, 0x00020000),
    "clone user": (56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0),
    "setns": (308, 0, 0),
    "chroot": (161, b"/"),
    "mount": (165, b"none", b"/tmp", b"tmpfs", 0, None),
    "umount": (166, b"/tmp", 2),
    "open_tree": (428, -100, b"/", 1),
    "fsopen": (430, b"tmpfs", 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 0),
    "open_by_handle_at": (304, -100, 0, 0),
    "io_uring_setup": (425, 1, ctypes.create_string_buffer(256)),
    "memfd_create": (319, b"x", 0),
    "sched_setaffinity": (203, 0, 128, b"\xff" * 128),
    "shmget": (29, 0, 4096, 0o1600),
    "msgget": (68, 0, 0o1600),
    "sethostname": (170, b"x", 1),
    "clock_settime": (227, 0, 0),
    "reboot": (169, 0, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "init_module": (175, 0, 0, b""),
    "syslog": (103, 3, ctypes.create_string_buffer(64), 64),
    "type into the terminal": (16, 2, 0x5412, b"x"),
    "make a device": (133, b"/out/null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    "make a disk": (133, b"/tmp/disk", stat.S_IFBLK | 0o666, os.makedev(254, 0)),
}
REFUSED = (errno.EPERM, errno.EACCES, errno.ENOSYS)


class Reaches(Attack):
    """Tries all that a sandbox must refuse, and reports what it could do."""

    def attack(self, i):
        self.reached = []
        for attempt in (self.files, self.sockets, self.processes, self.calls, self.privileges):
            attempt()
        raise RuntimeError(json.dumps(sorted(set(self.reached))))

    @contextlib.contextmanager
    def trying(self, what):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            yield
            self.reached.append(what)

    def files(self):
        for path in map(Path, self.config["read"]):
            with self.trying(f"read {path}"):
                os.listdir(path) if path.is_dir() else path.read_bytes()
        for path in [*map(Path, self.config["write"]), self.data["recipe.py"], Path(torch.__file__)]:
            with self.trying(f"write {path}"):
                path.open("a").close()
        for path in self.config["read"]:
            with self.trying(f"link {path}"):
                os.link(path, "linked")
        with self.trying("rename the job's file"):
            os.rename(self.data["recipe.py"], "/job/other.py")

    def sockets(self):
        tcp, udp = self.config["tcp"], self.config["udp"]
        with self.trying("TCP"):
            socket.create_connection(("127.0.0.1", tcp), timeout=2).close()
        with self.trying("TCP over IPv6"):
            socket.create_connection(("::1", tcp), timeout=2).close()
        with contextlib.suppress(OSError):  # sending succeeds; the test looks whether it arrives
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", udp))
        with self.trying("DNS"):
            socket.getaddrinfo("localhost.localdomain.example.com", 80)
        for address in self.config["unix"]:
            with self.trying(f"unix socket {address!r}"):
                socket.socket(socket.AF_UNIX).connect(address.replace("@", "\0"))
        for family in (socket.AF_NETLINK, socket.AF_PACKET, socket.AF_ALG, socket.AF_VSOCK):
            with self.trying(f"socket of {family.name}"):
                socket.socket(family, socket.SOCK_RAW if family != socket.AF_ALG else socket.SOCK_SEQPACKET)
        with self.trying("another interface"):
            if [name for _, name in socket.if_nameindex() if name != "lo"] == []:
                raise OSError

    def processes(self):
        agent = self.config["agent"]
        for entry in filter(str.isdigit, os.listdir("/proc")):
            if int(entry) > 200:
                self.reached.append("processes of others")
            for name in ("environ", "cmdline"):
                with contextlib.suppress(OSError):
                    if self.config["secret"].encode() in Path("/proc", entry, name).read_bytes():
                        self.reached.append(f"the secret in some process's {name}")
        if self.config["secret"] in os.environ.values():
            self.reached.append("the secret in its own environment")
        with self.trying("a signal to the agent"):
            os.kill(agent, 0)
        with self.trying("the agent's memory"):
            open(f"/proc/{agent}/mem", "rb").close()
        with self.trying("the files of the first process"):
            os.listdir("/proc/1/root/root")
            os.listdir("/proc/1/root/home")

    def calls(self):
        for become in (os.setuid, os.setgid):
            with self.trying(become.__name__):
                become(0)
        for name, (number, *arguments) in CALLS.items():
            ctypes.set_errno(0)
            done = LIBC.syscall(number, *arguments)
            if name == "clone user" and done == 0:
                os._exit(0)
            if done >= 0 or ctypes.get_errno() not in REFUSED:
                self.reached.append(f"{name}: {done}, {errno.errorcode.get(ctypes.get_errno())}")

    def privileges(self):
        status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
        expected = {"CapEff": "0" * 16, "CapPrm": "0" * 16, "CapBnd": "0" * 16, "CapAmb": "0" * 16,
                    "NoNewPrivs": "1", "Seccomp": "2"}  # fmt: skip
        self.reached += [f"{name} is {status[name]}" for name in expected if status[name] != expected[name]]
        for command in (["su", "-c", "true"], ["unshare", "-r", "true"], ["mount", "-t", "tmpfs", "x", "/tmp"]):
            with self.trying(" ".join(command)):
                subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=10)


class LooksAround(Reaches):
    """The same without what would harm a machine if it succeeded: this one runs without a sandbox, too."""

    def calls(self):
        pass

    def privileges(self):
        self.reached.append(f"user {os.getuid()}")


class Signals(Attack):
    """Sends signals to whoever may listen: the agent, everybody, the group. (Its own harness is among them.)"""

    def attack(self, i):
        LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        for pid in (self.config["agent"], os.getppid(), 1, -1, 0):
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(OSError):
                    os.kill(pid, number)


class ForkBomb(Attack):
    """Each child forks on; none ever gives up, and all ignore what can be ignored."""

    def attack(self, i):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            with contextlib.suppress(OSError):
                os.fork()


class MemoryBomb(Attack):
    """A private and a shared hoard, each in as many processes as there may be; none lets others look at its pages."""

    def attack(self, i):
        import mmap

        LIBC.prctl(4, 0)  # PR_SET_DUMPABLE
        for _ in range(4):
            os.fork()
        hoard = []
        while True:
            with contextlib.suppress(OSError, MemoryError):
                hoard.append(mmap.mmap(-1, 32 << 20))
                hoard[-1].write(b"x" * (32 << 20))


class Sockets(Attack):
    """Memory of the kernel, as much as a socket's buffer takes: it counts as no process's."""

    def attack(self, i):
        pairs = [socket.socketpair() for _ in range(200)]
        time.sleep(3600 * len(pairs))


class MemoryFolders(Attack):
    """Fills the folders that are in memory; they have a size."""

    def attack(self, i):
        written = 0
        for folder in ("/tmp", "/dev/shm"):
            for number in range(1000):
                with contextlib.suppress(OSError), open(f"{folder}/{number}", "wb", buffering=0) as file:
                    written += file.write(bytes(1 << 20))
        raise RuntimeError(f"wrote {written >> 20} MB")


class ManyFiles(Attack):
    def attack(self, i):
        for number in range(10**9):
            open(f"/dev/shm/{number}", "w").close()


class DeepFolders(Attack):
    """A folder in a folder and so on, beyond any path's length, and the way in is closed."""

    def attack(self, i):
        for _ in range(1500):
            os.mkdir("deeper")
            os.chdir("deeper")
        Path("file").write_bytes(bytes(1000))
        os.chdir("/out")
        os.mkdir("closed")
        Path("closed/file").touch()
        os.chmod("closed", 0)
        os.chmod("/out", 0o500)
        time.sleep(3600)


class DiskFiller(Attack):
    """One growing file from many processes; a limit on a file's size is none on all."""

    def attack(self, i):
        for _ in range(3):
            os.fork()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for number in range(10**6):
            with contextlib.suppress(OSError), open(f"big-{os.getpid()}-{number}", "wb", buffering=0) as file:
                while file.write(bytes(1 << 20)):
                    pass


class HidesFiles(Attack):
    """Files that no folder shows. (No more than a disk has.)"""

    def attack(self, i):
        held = []
        for number in range(300):
            held.append(os.open(str(number), os.O_WRONLY | os.O_CREAT))
            os.unlink(str(number))
            os.write(held[-1], bytes(1 << 20))
        time.sleep(3600)


class LogFlood(Attack):
    def attack(self, i):
        ends = time.monotonic() + 3
        while time.monotonic() < ends:
            os.write(1, b"o" * 65536)
            os.write(2, b"\x1b[2J\xff" * 8192)
        raise RuntimeError("the flood is over")


class IgnoresTheEnd(Attack):
    """Lives on when it should stop, when its pipe is closed, when its worker is gone; with children that do, too."""

    def attack(self, i):
        os._exit = lambda code: None
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_IGN)
        for _ in range(2):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    break
        while True:
            sum(range(10**6))


class SwapsCheckpoint(Attack):
    """Puts something else where the worker looks for a checkpoint, and says that one is there."""

    def attack(self, i):
        target, name = self.config["target"], "checkpoint-00001.safetensors"
        Path("checkpoint-00001.trace").write_bytes(bytes(32 * i))
        match self.config["what"]:
            case "symlink":
                os.symlink(target, name)
            case "fifo":
                os.mkfifo(name)
            case "folder":
                os.mkdir(name)
            case "socket":
                socket.socket(socket.AF_UNIX).bind(name)
            case "hard link":
                os.link(self.data["recipe.py"], name)
            case "device":
                os.symlink("/dev/zero", name)
            case "sparse":
                with open(name, "wb") as file:
                    file.truncate(1 << 50)
            case "long trace":
                Path(name).write_bytes(b"x")
                os.truncate("checkpoint-00001.trace", 60 << 20)
            case "trace":
                Path(name).write_bytes(b"x")
                os.unlink("checkpoint-00001.trace")
                os.symlink(target, "checkpoint-00001.trace")
        say(checkpoint(i))
        time.sleep(3600)


class Lies(Attack):
    """Takes the pipe to the worker and says what it likes, then closes it."""

    def attack(self, i):
        for line in self.config["lines"]:
            say(bytes.fromhex(line))
        if self.config.get("close"):
            os.close(pipe())
        time.sleep(3600)


class Deaf(Attack):
    """Makes checkpoints, and hears no answer: the worker's side of the pipe shall run full."""

    def attack(self, i):
        from contracts.commitment import trace_root
        from worker.training.messages import Command

        Command.model_validate_json = lambda line: time.sleep(3600)
        root = "0x" + trace_root([bytes(32)] * 4).hex()
        for index in range(1, 200):
            name = f"checkpoint-{index:05}"
            Path(f"{name}.safetensors").write_bytes(b"x")
            Path(f"{name}.trace").write_bytes(bytes(32 * 4))
            say(checkpoint(4 * index, index=index, path=f"{name}.safetensors", trace_root=root))
        time.sleep(3600)


def checkpoint(step, **fields):
    message = {"type": "checkpoint", "index": 1, "step": step, "path": "checkpoint-00001.safetensors", "metrics": {},
               "trace_root": "0x" + "00" * 32, "seconds": 1}  # fmt: skip
    return json.dumps(message | fields).encode()


def pipe():
    """The harness's way out."""
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            is_pipe = os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
            if is_pipe and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
                return fd
    raise RuntimeError("there is no pipe")


def say(line):
    data = line + b"\n"
    while data:
        data = data[os.write(pipe(), data) :]
