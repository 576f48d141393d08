"""The benchmark of checkpoints where there is no sandbox for its recipe."""

from pathlib import Path

import pytest

from tests.bench import checkpoint
from worker.sandbox.bubblewrap import bubblewrap_problem


def test_without_bubblewrap_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bubblewrap_problem.cache_clear()
    try:
        with pytest.raises(SystemExit, match=r"bench checkpoint: .* bubblewrap is not installed: install bubblewrap"):
            checkpoint.main(json=True)
    finally:
        bubblewrap_problem.cache_clear()
