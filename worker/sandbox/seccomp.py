"""System calls that a sandboxed program has no use for, refused by the kernel: a seccomp filter, built here.

`program()` is what bubblewrap's --seccomp reads. `python -m worker.sandbox.seccomp COMMAND...` puts the filter on
itself and becomes the command, for sandboxes that take no such file. On machines other than x86_64 and aarch64 there is
none.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Architecture(NamedTuple):
    audit: int  # AUDIT_ARCH_*, which the kernel compares with how a call was made
    column: int  # of CALLS
    clone: int
    socket: int
    ioctl: int
    mmap: int
    fcntl: int
    prctl: int
    setsockopt: int


ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, 0, 56, 41, 16, 9, 72, 157, 54),
    "aarch64": Architecture(0xC00000B7, 1, 220, 198, 29, 222, 25, 167, 208),
}

# Names with their numbers on x86_64 and aarch64. None: that machine lacks it.
CALLS: dict[str, tuple[int | None, int | None]] = {
    # Other processes, and keys that outlive this one.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # Namespaces, mounts, files by handle: ways around what is mounted.
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    # The machine as a whole, and the cores of others.
    "sched_setaffinity": (203, 122),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "userfaultfd": (323, 282),
    # Memory that belongs to no process, so that nothing counts it. (A filter of a filter is that, too.)
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "seccomp": (317, 277),
}
# Programs that try these have another way, which they take if the kernel seems not to know the call. clone3 keeps
# its flags where a filter can't look; memfd is memory that no process needs to map; io_uring goes around filters.
# A page in a pipe or a socket stays, and with a byte of it all of a huge page, when whoever put it there has unmapped
# it or deleted the file: hence none of splice and its like. Watches and rules hold memory of the kernel without number,
# and the requests of io_setup are numbered for the machine as a whole.
UNKNOWN: dict[str, tuple[int | None, int | None]] = {
    "clone3": (435, 435),
    "splice": (275, 76),
    "tee": (276, 77),
    "vmsplice": (278, 75),
    "sendfile": (40, 71),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "landlock_create_ruleset": (444, 444),
    "io_setup": (206, 0),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
NEW_NAMESPACES = 0x7E02_0000  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
SOCKET_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6. Not AF_VSOCK: no network namespace holds it
SOCKET_PROTOCOLS = (0, 1, 6, 17, 58)  # ICMP, TCP, UDP, ICMPv6. Others load modules, and have buffers of their own
TYPING_IOCTLS = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: put text into a terminal's input
HUGE_PAGES = 0x4_0000  # MAP_HUGETLB: of the machine's reserve, which no process's memory shows
PIPE_SIZE = 1031  # F_SETPIPE_SZ: the kernel's own size is enough
SECCOMP_MODE = 22  # PR_SET_SECCOMP
# Of SOL_SOCKET: SNDBUF, RCVBUF and both with FORCE; ATTACH_FILTER, ATTACH_BPF and both for REUSEPORT; ZEROCOPY, which
# pins pages.
BUFFER_OPTIONS = (7, 8, 32, 33, 26, 50, 51, 52, 60)

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _KILL = 0x7FFF_0000, 0x8000_0000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_SOL_SOCKET = 1
_X32 = 0x4000_0000  # x86_64's second set of call numbers


def program(machine: str = platform.machine()) -> bytes | None:
    """The filter as the kernel's struct sock_filter[]; None if there is none for this machine."""
    known = ARCHITECTURES.get(machine)
    if known is None:
        return None
    code = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, known.audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), _refuse(errno.ENOSYS)]
    for calls, answer in ((CALLS, errno.EPERM), (UNKNOWN, errno.ENOSYS)):
        for numbers in calls.values():
            number = numbers[known.column]
            if number is not None:
                code += [(_EQUAL, 0, 1, number), _refuse(answer)]
    code += _checked(known.clone, 0, [(_AND, 0, 0, NEW_NAMESPACES), (_EQUAL, 1, 0, 0), _refuse(errno.EPERM)])
    families = _none_but(SOCKET_FAMILIES, errno.EAFNOSUPPORT)
    protocols = _none_but(SOCKET_PROTOCOLS, errno.EPROTONOSUPPORT)
    code += _checked(known.socket, 0, [*families, _argument(2), *protocols])
    code += _checked(known.ioctl, 1, _not(TYPING_IOCTLS))
    code += _checked(known.fcntl, 1, _not([PIPE_SIZE]))
    code += _checked(known.prctl, 0, _not([SECCOMP_MODE]))
    code += _checked(known.mmap, 3, [(_AND, 0, 0, HUGE_PAGES), (_EQUAL, 1, 0, 0), _refuse(errno.ENOMEM)])
    options = _not(BUFFER_OPTIONS)
    code += _checked(known.setsockopt, 1, [(_EQUAL, 0, len(options) + 1, _SOL_SOCKET), _argument(2), *options])
    return b"".join(struct.pack("=HBBI", *step) for step in [*code, (_RETURN, 0, 0, _ALLOW)])


_Instruction = tuple[int, int, int, int]  # struct sock_filter: operation, jump if true, jump if false, operand


def _refuse(number: int) -> _Instruction:
    return (_RETURN, 0, 0, 0x0005_0000 | number)


def _argument(number: int) -> _Instruction:
    """Its low half: both machines are little-endian."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * number)


def _not(values: Sequence[int]) -> list[_Instruction]:
    return [step for value in values for step in ((_EQUAL, 0, 1, value), _refuse(errno.EPERM))]


def _none_but(values: Sequence[int], answer: int) -> list[_Instruction]:
    return [*((_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)), _refuse(answer)]


def _checked(call: int, argument: int, steps: list[_Instruction]) -> list[_Instruction]:
    """For one call: its argument's low half goes through `steps`, then the call is allowed."""
    body = [_argument(argument), *steps, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), call), *body]


def install() -> None:
    """Puts the filter on this process, for good. Raises OSError if the kernel refuses."""
    code = program()
    if code is None:
        return

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    argument = ctypes.byref(Program(len(code) // 8, code))
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, filter_mode, argument, 0, 0):
        raise OSError(ctypes.get_errno(), "can't install the seccomp filter")


if __name__ == "__main__":
    install()
    os.execv(sys.argv[1], sys.argv[1:])
