"""Recipes that make the kernel hold memory for them which no process has. Bounded by config["gb"] gigabytes."""

import array
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import select
import socket
import sys
import time
from pathlib import Path

import torch
from torch import nn

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE


class Hold:
    """Trains honestly until step 2, then takes what it can, and says how much that was."""

    def __init__(self, config, data):
        self.config, self.data = config, data
        self.model = nn.Linear(4, 4)

    def step(self, i):
        if i == 2:
            self.start = available()
            self.sent = 0
            self.hold()
            time.sleep(3)
            if self.sent:
                raise RuntimeError(f"sent {self.sent >> 20} MB")
            time.sleep(17)  # on a busy machine a look takes long
            raise RuntimeError(f"held {self.start - available():.2f} GB, unnoticed")
        return {"loss": self.model(torch.randn(2, 4)).sum().item()}

    def done(self):
        return self.start - available() > self.config.get("gb", 1)

    def state_dict(self):
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])


def available():
    """GB of this machine's memory."""
    return int(next(line for line in open("/proc/meminfo") if line.startswith("MemAvailable")).split()[1]) / 1e6


def called(answer, name):
    if answer in (-1, None, 2**64 - 1):
        raise RuntimeError(f"{name}: {errno.errorcode.get(ctypes.get_errno())}")
    return answer


class Semaphores(Hold):
    def hold(self):
        while not self.done():
            called(LIBC.semget(0, 32000, 0o1600), "semget")


class MessageQueues(Hold):
    def hold(self):
        for number in range(1000):
            called(LIBC.syscall(240, b"q%d" % number, os.O_CREAT | os.O_RDWR, 0o600, None), "mq_open")


class PageTables(Hold):
    """Reading one byte of each 2 MB of a mapping takes a page table each, and no memory that counts."""

    def hold(self):
        touched = 0
        while not self.done():
            at = called(LIBC.mmap(None, 1 << 36, mmap.PROT_READ, PRIVATE, -1, 0), "mmap")
            LIBC.madvise(ctypes.c_void_p(at), ctypes.c_size_t(1 << 36), 15)  # MADV_NOHUGEPAGE
            for offset in range(0, 1 << 36, 1 << 21):
                ctypes.c_char.from_address(at + offset).value  # noqa: B018
                touched += 1
                if touched % 20000 == 0 and self.done():
                    break


class Mappings(Hold):
    """Stripes of one mapping are a description each, and a process that is forked has all of them again."""

    def hold(self):
        at = called(LIBC.mmap(None, 1 << 29, 0, PRIVATE, -1, 0), "mmap")
        for offset in range(0, 60_000 * 4096, 8192):
            LIBC.mprotect(ctypes.c_void_p(at + offset), ctypes.c_size_t(4096), mmap.PROT_READ)
        for _ in range(40):
            if not os.fork():
                time.sleep(60)
                os._exit(0)


class HugePages(Hold):
    def hold(self):
        called(LIBC.mmap(None, 1 << 21, mmap.PROT_READ | mmap.PROT_WRITE, PRIVATE | 0x40000, -1, 0), "huge mmap")


class TcpBuffers(Hold):
    """230 sockets, each as full as it will be; by their owner's wish, or as the kernel makes them by itself."""

    def hold(self):
        listener, held = socket.create_server(("127.0.0.1", 0)), []
        for _ in range(115):
            one = socket.create_connection(listener.getsockname())
            held += [one, listener.accept()[0]]
        for one in held:
            if self.config.get("wish"):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
            one.setblocking(False)
        for _ in range(3):
            for one in held:
                with contextlib.suppress(BlockingIOError):
                    while self.sent < self.config.get("gb", 1) << 30:
                        self.sent += one.send(bytes(1 << 20))
            time.sleep(0.3)


class UnixBuffers(Hold):
    def hold(self):
        for _ in range(120):
            for one in socket.socketpair():
                one.setblocking(False)
                if self.config.get("wish"):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
                with contextlib.suppress(BlockingIOError):
                    while self.sent < self.config.get("gb", 1) << 30:
                        self.sent += one.send(bytes(1 << 16))
                self.kept = [*getattr(self, "kept", []), one]


class PipeSizes(Hold):
    def hold(self):
        self.kept = [os.pipe() for _ in range(50)]
        for _, end in self.kept:
            fcntl.fcntl(end, 1031, 1 << 20)  # F_SETPIPE_SZ


class SplicedPages(Hold):
    """A huge page stays as long as one of its pages is in a pipe."""

    def hold(self):
        iovec = ctypes.c_void_p * 2
        self.kept = [os.pipe()]
        for _ in range(16):
            at = called(LIBC.mmap(None, 1 << 21, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0), "mmap")
            vector = iovec(at, 4096)
            called(LIBC.vmsplice(self.kept[0][1], vector, ctypes.c_size_t(1), 0), "vmsplice")


class SentFiles(Hold):
    """Likewise for a page of a deleted file in a socket."""

    def hold(self):
        with open("/tmp/sent", "wb+") as file:
            file.write(bytes(1 << 20))
            self.kept = socket.socketpair()
            for at in range(0, 1 << 20, 4096):
                os.sendfile(self.kept[0].fileno(), file.fileno(), at, 1)


class Watches(Hold):
    def hold(self):
        called(LIBC.inotify_init1(0), "inotify_init1")


class Rules(Hold):
    def hold(self):
        if sys.platform == "linux":
            called(LIBC.syscall(444, ctypes.create_string_buffer(b"\xff\x1f" + bytes(6)), 8, 0), "landlock")


class Requests(Hold):
    def hold(self):
        called(LIBC.syscall(206, 1000, ctypes.byref(ctypes.c_ulong(0))), "io_setup")


class Filters(Hold):
    def hold(self):
        called(LIBC.prctl(22, 2, ctypes.create_string_buffer(16), 0, 0), "prctl")


class EventPolls(Hold):
    """A watch is 200 bytes: an epoll object for each file, and each watches all."""

    def hold(self):
        self.kept = [select.epoll() for _ in range(400)]
        ends = [os.open("/dev/null", os.O_RDONLY), *os.pipe()]
        for one in self.kept:
            one.register(ends[1])


class FileLocks(Hold):
    """A lock on a part of a file is 200 bytes, and of parts there is no end."""

    def hold(self):
        with open("/tmp/locked", "wb+") as file:
            for number in range(30_000):
                fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * number)
            time.sleep(3)


class InFlight(Hold):
    """Deleted files that only messages between two sockets hold."""

    def hold(self):
        self.kept = socket.socketpair()
        for number in range(100):
            with open(f"sent-{number}", "wb") as file:
                file.write(bytes(1 << 20))
                os.unlink(file.name)
                sent = array.array("i", [file.fileno()])
                self.kept[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sent)])


class SocketsInFlight(Hold):
    """Full sockets that no process has: each lies in another's queue."""

    def hold(self):
        self.kept = socket.socketpair()
        for _ in range(60):
            one, other = socket.socketpair()
            ends = array.array("i", [one.fileno(), other.fileno()])
            self.kept[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ends)])
            one.close()
            other.close()


class Signals(Hold):
    """Timers and queued signals, each with a place in the kernel."""

    def hold(self):
        made = ctypes.c_int()
        for number in range(100_000):
            if LIBC.syscall(222, 1, None, ctypes.byref(made)) < 0:
                raise RuntimeError(f"timer_create: {errno.errorcode.get(ctypes.get_errno())} after {number}")


class Folders(Hold):
    """Memory in /tmp counts, whether or not it is mapped."""

    def hold(self):
        for folder in ("/tmp", "/dev/shm"):
            for number in range(8):
                with contextlib.suppress(OSError):
                    Path(folder, f"filled-{number}").write_bytes(bytes(31 << 20))
