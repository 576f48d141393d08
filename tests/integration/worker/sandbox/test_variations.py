"""What an arbiter's runs are told of the machine is varied, and nothing else is."""

import json
from pathlib import Path
from typing import Any

from tests.support.curious_run import curious
from worker.sandbox.hiding.variation import PLAIN, Variation, varied

HIDDEN = ("/proc/sys/kernel/hostname", "/proc/sys/kernel/random/boot_id", "/proc/uptime", "/proc/meminfo")


def told(folder: Path, variation: Variation) -> Any:
    return json.loads(curious(folder, variation))


def test_each_run_is_told_another_machine(tmp_path: Path) -> None:
    plain, first, second = (
        told(tmp_path / name, one) for name, one in (("plain", PLAIN), ("first", varied(0)), ("second", varied(1)))
    )
    hosts = [one["machine"].pop("host") for one in (plain, first, second)]
    assert [names[0] for names in hosts] == ["sandbox", "machine-1", "machine-2"]
    proc = [one["machine"].pop("proc") for one in (plain, first, second)]
    for path in HIDDEN:
        texts = [found.pop(path) for found in proc]
        assert len(set(texts)) == 3, (path, texts)
    assert proc[0] == proc[1] == proc[2]
    assert plain == first == second
