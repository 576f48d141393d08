"""What NVIDIA's driver reports of a GPU while somebody listens: whose fault it is, and how long it holds."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pynvml
import pytest
from structlog.testing import capture_logs

from contracts.errors import UserError
from tests.support.nvidia_driver import FakeCard, FakeDriver
from tests.support.worker_leases import OFFER
from worker.driver.sentences import XIDS
from worker.driver.xids import XidListener
from worker.machine.blame import judged
from worker.machine.troubles import xid_trouble
from worker.training.failures import Failure

FAULTS = (46, 48, 62, 64, 74, 79, 95, 119, 120, 140)
APPLICATIONS = (13, 31, 43, 45, 68, 69, 109)
CPU = OFFER.model_copy(update={"device": "cpu"})


Listening = Callable[..., XidListener]


@pytest.fixture
def listening(fake_driver: FakeDriver) -> Iterator[Listening]:
    """Makes listeners to GPUs."""
    with ExitStack() as stack:

        def listening(*gpus: str) -> XidListener:
            listener = XidListener(gpus)
            stack.callback(listener.close)
            return listener

        yield listening


@pytest.fixture
def listener(listening: Listening) -> XidListener:
    """Of the one card; it listens."""
    listener = listening("GPU-1")
    listener.read()
    return listener


@pytest.mark.parametrize("number", FAULTS)
def test_a_fault_of_the_gpu_stays(fake_driver: FakeDriver, listener: XidListener, number: int) -> None:
    assert xid_trouble(listener) is None
    fake_driver.report(31)
    fake_driver.report(number)
    fake_driver.report(45)
    for _ in range(2):
        trouble = xid_trouble(listener)
        assert trouble is not None and (trouble.of, trouble.dead) == ("gpu", True)
        assert trouble.what.startswith(f"GPU GPU-1 reported Xid {number}: ") and XIDS[number].what in trouble.what
        assert "then start the agent again" in trouble.mend
    # Who holds the driver open stands in the way of a reset.
    assert (fake_driver.opened, fake_driver.listening) == (0, [])


@pytest.mark.parametrize("number", [*APPLICATIONS, 94, 4242])
def test_what_ended_one_program_is_no_trouble_of_the_gpu(
    fake_driver: FakeDriver, listener: XidListener, number: int
) -> None:
    fake_driver.report(number)
    assert xid_trouble(listener) is None
    assert [xid.number for xid in listener.since(0.0)] == [number]
    assert (fake_driver.opened, len(fake_driver.listening)) == (1, 1)


@pytest.mark.parametrize("number", APPLICATIONS)
@pytest.mark.parametrize("kind", ["nan", "units"])
def test_what_a_recipe_did_is_named_and_stays_its_own(
    fake_driver: FakeDriver, listener: XidListener, number: int, kind: str
) -> None:
    began = time.monotonic()
    fake_driver.report(number)
    error = judged(Failure(kind, "step 4: it broke", "mend it", "a trace"), CPU, listener, began, began=True)  # type: ignore[arg-type]
    assert isinstance(error, Failure) and (error.kind, error.hint, error.trace) == (kind, "mend it", "a trace")
    assert error.message == f"step 4: it broke (GPU GPU-1 reported Xid {number}: {XIDS[number].what})"
    later = judged(Failure("nan", "step 4: it broke"), CPU, listener, time.monotonic(), began=True)
    assert later.message == "step 4: it broke"


@pytest.mark.parametrize("number", [48, 79, 94, 95, 119])
@pytest.mark.parametrize("error", [Failure("nan", "loss is nan"), UserError("not reproducible: step 2")])
def test_what_came_of_a_fault_is_not_the_recipes(
    fake_driver: FakeDriver, listener: XidListener, number: int, error: UserError
) -> None:
    began = time.monotonic()
    fake_driver.report(number)
    found = judged(error, CPU, listener, began, began=True)
    assert isinstance(found, Failure) and found.kind == "machine" and found.hint == XIDS[number].mend
    assert found.message.startswith(f"GPU GPU-1 reported Xid {number}: ") and found.message.endswith(error.message)


def test_an_xid_that_nobody_knows_is_told_with_its_number(fake_driver: FakeDriver, listener: XidListener) -> None:
    began = time.monotonic()
    fake_driver.report(4242)
    error = judged(Failure("nan", "loss is nan"), CPU, listener, began, began=True)
    assert "Xid 4242: NVIDIA's catalog" in error.message


def test_each_xid_is_told_with_what_to_do() -> None:
    for number, saying in XIDS.items():
        assert saying.what and (saying.blames == "recipe" or saying.mend), number


def test_the_same_report_is_logged_once(fake_driver: FakeDriver, listener: XidListener) -> None:
    for _ in range(50):
        fake_driver.report(31)
    with capture_logs() as logs:
        listener.read()
    assert [(line["xid"], line["gpu"]) for line in logs if line["event"] == "gpu.xid"] == [(31, "GPU-1")]


def test_only_what_is_sold_is_listened_to(fake_driver: FakeDriver, listening: Listening) -> None:
    parts = [FakeCard(uuid=f"MIG-{n}") for n in (3, 4)]
    fake_driver.cards = [FakeCard(), FakeCard(uuid="GPU-2", split=True, instances=parts)]
    one, part, nothing = listening("GPU-1"), listening("MIG-3"), listening()
    for listener in (one, part, nothing):
        listener.read()
    fake_driver.report(48, card=1, instance=7)  # of another instance
    assert [xid_trouble(listener) for listener in (one, part, nothing)] == [None, None, None]
    fake_driver.report(48, card=1, instance=3)  # as the driver numbers it
    assert [bool(xid_trouble(listener)) for listener in (one, part, nothing)] == [False, True, False]
    other = listening("MIG-4")
    other.read()
    fake_driver.report(79, card=1)  # of the whole card
    assert xid_trouble(other) is not None


@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND]
)
@pytest.mark.parametrize("call", ["register", "wait"])
def test_a_driver_that_reports_nothing_costs_nothing(
    fake_driver: FakeDriver, listening: Listening, call: str, code: int
) -> None:
    fake_driver.cards.append(FakeCard(uuid="GPU-2", errors={call: code}))
    listener = listening("GPU-1", "GPU-2")
    with capture_logs() as logs:
        for _ in range(3):
            listener.read()
    assert [line["gpu"] for line in logs if line["event"] == "gpu.reports_no_xids"] == ["GPU-2"]
    fake_driver.report(119)  # of the one that does
    trouble = xid_trouble(listener)
    assert trouble is not None and "GPU-1" in trouble.what


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_UNKNOWN, 4242])
@pytest.mark.parametrize("call", ["register", "wait", "handle"])
def test_what_fails_now_is_tried_again(fake_driver: FakeDriver, listening: Listening, call: str, code: int) -> None:
    listener = listening("GPU-1")
    fake_driver.cards[0].errors[call] = code
    listener.read()
    assert (fake_driver.opened, fake_driver.listening) == (0, [])
    fake_driver.cards[0].errors.clear()
    listener.read()
    fake_driver.report(62)
    assert xid_trouble(listener) is not None


def test_what_was_reported_before_the_driver_failed_is_kept(fake_driver: FakeDriver, listener: XidListener) -> None:
    fake_driver.report(79)
    fake_driver.cards[0].errors["wait"] = pynvml.NVML_ERROR_GPU_IS_LOST
    assert xid_trouble(listener) is not None
    fake_driver.broken = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    assert xid_trouble(listener) is not None


def test_no_driver_and_then_one(fake_driver: FakeDriver, listening: Listening) -> None:
    fake_driver.broken = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    listener = listening("GPU-1")
    assert xid_trouble(listener) is None
    fake_driver.broken = None
    listener.read()
    fake_driver.report(120)
    assert xid_trouble(listener) is not None


def test_it_lets_go_of_the_driver(fake_driver: FakeDriver, listener: XidListener) -> None:
    listener.let_go()
    assert (fake_driver.opened, fake_driver.listening) == (0, [])
    listener.read()
    assert (fake_driver.opened, len(fake_driver.listening)) == (1, 1)
    listener.close()
    assert (fake_driver.opened, fake_driver.listening) == (0, [])
    listener.read()
    assert fake_driver.opened == 0
