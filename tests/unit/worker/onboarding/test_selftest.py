"""What the selftest says of GPUs as NVML reports them."""

from dataclasses import replace

import pytest

from tests.support.worker_leases import OFFER
from worker.onboarding.selftest import GpuHealth, judge_gpus

WELL = GpuHealth(0, 'A "quoted" GPU', "570.1", 24_000, 23_900, 60, 0)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "ok", "driver 570.1"),
        ({"ecc_errors": None, "celsius": None}, "ok", "driver"),
        ({"ecc_errors": 2}, "fail", "2 uncorrected ECC errors"),
        ({"name": "Another"}, "fail", "GPU 0 is Another"),
        ({"memory_mb": 20_000}, "fail", "the Ask sells"),
        ({"celsius": 90}, "warn", "90 °C"),
        ({"free_mb": 10_000}, "warn", "10,000 of 24,000 MB free"),
    ],
)
def test_gpus_as_nvml_reports_them(changes: dict[str, object], verdict: str, words: str) -> None:
    check = judge_gpus([replace(WELL, **changes)], OFFER)  # type: ignore[arg-type]
    assert check.verdict == verdict and words in check.found
    assert (check.mend == "") == (verdict == "ok")


def test_a_gpu_that_is_missing() -> None:
    assert judge_gpus([], OFFER).verdict == "fail"
