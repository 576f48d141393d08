"""Run by the worker, for a sandbox that it has just started: `small_buffers.py PID`. Standard library only.

Makes the buffers of TCP small in the network of process PID: they are memory of the kernel that no process has, and
grow to tens of megabytes a socket by themselves. Who made the sandbox may change its network, root or not.
"""

import ctypes
import fcntl
import os
import sys

NEW_USER, NEW_NET = 0x1000_0000, 0x4000_0000
GET_OWNER = 0xB701  # NS_GET_USERNS
BUFFERS = {"tcp_wmem": "4096 16384 262144", "tcp_rmem": "4096 131072 262144"}  # smallest, first, largest; bytes


def make_buffers_small(pid: str) -> None:
    """Raises OSError where the kernel, or a container around this machine, does not allow it."""
    enter = ctypes.CDLL(None, use_errno=True).setns
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if os.geteuid() != 0:
        _check(enter(fcntl.ioctl(network, GET_OWNER), NEW_USER))
    _check(enter(network, NEW_NET))
    for name, sizes in BUFFERS.items():
        with open(f"/proc/sys/net/ipv4/{name}", "w") as file:
            file.write(sizes)


def _check(answer: int) -> None:
    if answer:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    make_buffers_small(sys.argv[1])
