"""The contracts as built: ABI and bytecode from `contracts/artifacts`, so that no compiler is needed."""

import json
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple


class Artifact(NamedTuple):
    abi: list[dict[str, Any]]
    bytecode: str  # of the constructor, 0x-hex


@cache
def load_artifact(name: str) -> Artifact:
    """One of Escrow, DevToken, EpochLog, OperatorArbiter."""
    data = json.loads(files("contracts").joinpath("artifacts", f"{name}.json").read_text(encoding="utf-8"))
    return Artifact(data["abi"], data["bytecode"])
