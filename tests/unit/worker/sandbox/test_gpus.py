"""GPUs: named as the driver does, and refused where there are none."""

import pynvml
import pytest

from contracts.errors import UserError
from worker.sandbox import gpus
from worker.sandbox.gpus import Gpu


def test_gpus_are_named_as_the_driver_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMinorNumber", lambda index: 7 - index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda index: f"GPU-{index}")
    assert gpus.granted([1]) == (Gpu(6, "GPU-1"),)
    assert gpus.granted([]) == (Gpu(7, "GPU-0"), Gpu(6, "GPU-1"))
    variables = gpus.training_environment(1, gpus.granted([]), "/tmp")
    assert variables["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"
    assert gpus.training_environment(1, (), "/tmp")["CUDA_VISIBLE_DEVICES"] == ""


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UserError, match="can't find GPU 99 on this machine"):
        gpus.granted([99])
