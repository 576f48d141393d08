"""States of equal tensors that are of other kinds are not equal, and what a replay says of them."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from contracts.job.state_kinds import METADATA
from worker.replay.differences import unlike_kinds, unlike_tensors
from worker.replay.findings import ReplayDifference


def test_what_differs_in_kind_only_is_named(tmp_path: Path) -> None:
    claimed, mine = tmp_path / "claimed", tmp_path / "mine"
    save_file({"n": torch.tensor(3), "x": torch.ones(2)}, claimed, {METADATA: '{"n": "scalar"}'})
    save_file({"n": torch.tensor(3), "x": torch.ones(2)}, mine, {METADATA: '{"n": "int", "x": "array"}'})
    assert unlike_tensors(claimed, mine) == []
    kinds = unlike_kinds(claimed, mine)
    assert kinds == {"n": ("scalar", "int"), "x": (None, "array")}
    found = ReplayDifference(step=None, tensors=(), of_tensors=2, metrics={}, kinds=kinds)
    assert found.sentence() == ("2 of its entries are of another kind, the first is 'n' ('int', claimed was 'scalar')")
    assert found.as_json()["kinds"]["x"] == {"claimed": None, "replayed": "array"}
    assert unlike_kinds(mine, mine) == {}
