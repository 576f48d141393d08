"""The processor's name."""

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Instructions for which MKL, oneDNN and ATen have kernels of their own; as Linux names them.
ISA = {
    "sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512dq", "avx512cd", "avx512bw",
    "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    "asimd", "asimddp", "asimdhp", "sve", "sve2", "bf16", "i8mm",
}  # fmt: skip


def with_processor(numerics: Mapping[str, Any]) -> dict[str, Any]:
    """What a process in a sandbox says of its numerics, with what it can't know there. Called outside.

    Of the processor its maker, family, model, and those of its instructions that libraries choose code by. Not its
    name, which virtual machines make up, nor its stepping: docs/numerics.md.
    """
    info = _cpuinfo()
    maker = _field("vendor_id", info) or _field("CPU implementer", info) or platform.machine()
    numbers = (_field("cpu family", info), _field("model", info) or _field("CPU part", info))
    has = set((_field("flags", info) or _field("Features", info)).split())
    return {**numerics, "cpu": f"{maker} {'/'.join(filter(None, numbers))}".strip(), "isa": " ".join(sorted(has & ISA))}


def cpu_model() -> str:
    """The processor's name, with family, model and stepping if known: virtual machines share names."""
    info = _cpuinfo()
    if not info:
        return platform.processor() or platform.machine()
    numbers = [_field(key, info) for key in ("cpu family", "model", "stepping")]
    return f"{_field('model name', info) or platform.machine()} ({'/'.join(numbers)})"


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _field(key: str, info: str) -> str:
    found = re.search(rf"^{key}\s*: (.+)$", info, re.MULTILINE)
    return found[1] if found else ""
