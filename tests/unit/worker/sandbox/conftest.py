"""Every test here can take device nodes of GPUs, `dev`."""

from pathlib import Path

import pytest

from worker.sandbox import gpus


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Device nodes of four GPUs, as far as a file can be one."""
    folder = tmp_path / "dev"
    folder.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm", "nvidia-modeset"):
        (folder / name).touch()
    monkeypatch.setattr(gpus, "DEV", folder)
    return folder
