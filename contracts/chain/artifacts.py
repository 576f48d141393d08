"""The contracts as built: ABI and bytecode from `contracts/artifacts`, so that no compiler is needed."""

from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from contracts.strict_json import read_json


class Artifact(NamedTuple):
    abi: list[dict[str, Any]]
    bytecode: str  # of the constructor, 0x-hex


@cache
def load_artifact(name: str) -> Artifact:
    """One of Escrow, DevToken, EpochLog, OperatorArbiter."""
    data = read_json(files("contracts").joinpath("artifacts", f"{name}.json").read_text(encoding="utf-8"))
    return Artifact(data["abi"], data["bytecode"])
