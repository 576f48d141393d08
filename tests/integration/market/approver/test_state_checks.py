"""Files of strangers, checked in processes: each within its time, none behind another."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts import commitment
from contracts.job.state_kinds import METADATA
from contracts.statefile import read_state
from contracts.types import ZERO_TIP, to_hex
from market.approver.state_checks import SlowCheck, StateChecks
from tests.support.market_parts import make_record
from tests.support.stepped_market import safetensors_bytes

JOB = "0x" + "11" * 32


@pytest.fixture(scope="module")
def checks() -> Iterator[StateChecks]:
    made = StateChecks(2, seconds=120)
    yield made
    made.close()


def record(state: bytes, **changes: Any) -> Any:
    root = to_hex(commitment.state_root(*read_state(state)))
    return make_record(JOB, 1, ZERO_TIP, state, **({"state_root": root} | changes))


def empty_tensors(count: int) -> bytes:
    """The file of the case: names of tensors that have nothing in them."""
    text = json.dumps({f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(count)}).encode()
    return len(text).to_bytes(8, "little") + text


def test_the_answers_are_those_of_the_check(checks: StateChecks, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(good := safetensors_bytes({"weight": bytes(5000)}))
    assert checks.problem(path, record(good)) is None
    wrong = checks.problem(path, record(good, state_root="0x" + "22" * 32))
    assert wrong is not None and "state root" in wrong
    path.write_bytes(swapped := safetensors_bytes({"weight": bytes(5000)}, **{METADATA: '{"weight": "array"}'}))
    wrong = checks.problem(path, record(good))
    assert wrong is not None and "state root" in wrong and checks.problem(path, record(swapped)) is None
    path.write_bytes(safetensors_bytes({"weight": bytes(5000)}, **{METADATA: '{"weight": "array", "weight": "str"}'}))
    problem = checks.problem(path, record(good))
    assert problem is not None and "its kinds can't be read: two entries have the same name" in problem
    path.write_bytes(b"not a state")
    assert checks.problem(path, record(good)) == "not a safetensors file: it has no header"


@pytest.mark.parametrize(("count", "says"), [(300_000, "header has"), (commitment.MAX_TENSORS + 1, "more than 65536")])
def test_what_nobody_could_check_in_seconds_is_refused(
    checks: StateChecks, tmp_path: Path, count: int, says: str
) -> None:
    path = tmp_path / "state"
    path.write_bytes(empty_tensors(count))
    problem = checks.problem(path, record(safetensors_bytes({})))
    assert problem is not None and says in problem


def test_a_check_ends_with_its_time_and_holds_up_no_other(tmp_path: Path) -> None:
    checks = StateChecks(2, seconds=0.5)
    try:
        endless, good = tmp_path / "endless", tmp_path / "good"
        with endless.open("wb") as file:  # a tensor that takes minutes to hash, with no byte of it on the disk
            size = 1 << 36
            text = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + size)
        state = safetensors_bytes({"weight": bytes(100)})
        good.write_bytes(state)
        slow: list[Exception] = []

        def check_endless() -> None:
            try:
                checks.problem(endless, record(state))
            except SlowCheck as error:
                slow.append(error)

        checks.problem(good, record(state))  # the processes are there
        thread = threading.Thread(target=check_endless)
        thread.start()
        while thread.is_alive():
            assert checks.problem(good, record(state)) is None
            time.sleep(0.05)
        assert len(slow) == 1 and "within 0.5 s" in str(slow[0])
        assert checks.problem(good, record(state)) is None
    finally:
        checks.close()
