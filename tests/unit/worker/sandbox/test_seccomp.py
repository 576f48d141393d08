"""The filter of system calls: what it refuses, and no more."""

import errno
import platform
import struct
import subprocess
import sys

import pytest

from worker.sandbox import seccomp


def run_filter(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """The filter's answer to a call: ALLOW, KILL, or an error number."""
    code = seccomp.program(machine)
    assert code
    steps = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]
    known = seccomp.ARCHITECTURES[machine]
    data = struct.pack(
        "<iIQ6Q", number, known.audit if audit is None else audit, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6]
    )
    accumulator, at = 0, 0
    while True:
        operation, true, false, operand = steps[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += true if accumulator == operand else false
            case 0x35:
                at += true if accumulator >= operand else false
            case 0x06:
                return int(operand) & 0xFFFF if operand >> 16 == 5 else int(operand)


ALLOW, KILL = 0x7FFF_0000, 0x8000_0000


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_refuses_what_it_lists_and_no_more(machine: str) -> None:
    known = seccomp.ARCHITECTURES[machine]
    refused = {numbers[known.column]: errno.EPERM for numbers in seccomp.CALLS.values()}
    refused |= {numbers[known.column]: errno.ENOSYS for numbers in seccomp.UNKNOWN.values()}
    for number in range(500):
        expected = errno.EAFNOSUPPORT if number == known.socket else refused.get(number, ALLOW)
        assert run_filter(machine, number) == expected, number
    assert run_filter(machine, 1, audit=0x40000003) == KILL  # 32-bit calls have other numbers
    assert run_filter(machine, known.clone, 0x0001_0F00 | 17) == ALLOW
    assert run_filter(machine, known.clone, 0x1000_0000 | 17) == errno.EPERM
    for family in range(50):
        assert run_filter(machine, known.socket, family) == (ALLOW if family in (1, 2, 10) else errno.EAFNOSUPPORT)
    assert run_filter(machine, known.ioctl, 2, 0x5412) == errno.EPERM
    assert run_filter(machine, known.ioctl, 2, 0x5412 | 1 << 40) == errno.EPERM  # the kernel looks at 32 bits
    assert run_filter(machine, known.ioctl, 2, 0x5413) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_makes_the_kernel_hold_memory_is_refused_by_its_arguments(machine: str) -> None:
    known = seccomp.ARCHITECTURES[machine]
    for protocol, answer in ((0, ALLOW), (6, ALLOW), (17, ALLOW), (132, errno.EPROTONOSUPPORT), (262, 93)):
        assert run_filter(machine, known.socket, 2, 1, protocol) == answer, protocol
    private, huge = 0x22, 0x40022 | 21 << 26
    assert run_filter(machine, known.mmap, 0, 4096, 3, private) == ALLOW
    assert run_filter(machine, known.mmap, 0, 4096, 3, huge) == errno.ENOMEM
    for command in range(2000):
        assert run_filter(machine, known.fcntl, 3, command) == (errno.EPERM if command == 1031 else ALLOW)
    for option in range(90):
        assert run_filter(machine, known.prctl, option) == (errno.EPERM if option == 22 else ALLOW)
        expected = errno.EPERM if option in seccomp.BUFFER_OPTIONS else ALLOW
        assert run_filter(machine, known.setsockopt, 3, 1, option) == expected
        assert run_filter(machine, known.setsockopt, 3, 6, option) == ALLOW  # TCP's own have other numbers


def test_x32_calls_are_refused() -> None:
    assert run_filter("x86_64", 0x4000_0000 | 101) == errno.ENOSYS


def test_there_is_no_filter_for_other_machines() -> None:
    assert seccomp.program("riscv64") is None


@pytest.mark.skipif(platform.machine() not in seccomp.ARCHITECTURES, reason="no filter for this machine")
def test_the_kernel_takes_the_filter() -> None:
    keyctl = seccomp.CALLS["keyctl"][seccomp.ARCHITECTURES[platform.machine()].column]
    program = f"import ctypes; c = ctypes.CDLL(None, use_errno=True); c.syscall({keyctl}, 0, -4, 0)"
    command = [
        sys.executable,
        "-m",
        "worker.sandbox.seccomp",
        sys.executable,
        "-c",
        f"{program}; print(ctypes.get_errno())",
    ]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip() == str(errno.EPERM)
