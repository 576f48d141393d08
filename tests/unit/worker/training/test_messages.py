"""What a training process may say. It may be hostile."""

import json
from pathlib import Path
from typing import Any

import pytest

from worker.sandbox.log import CappedLog
from worker.training.failures import Failure
from worker.training.harness import failed
from worker.training.messages import Checkpoint, Conversation, Done, Measured, Ready, Stepped

MEASURED = {"type": "measured", "numerics": {"torch": "2.13.0"}}
READY = {"type": "ready", "flops": 10, "units": 1, "parameters": 5}
CHECKPOINT = {
    "type": "checkpoint", "index": 1, "step": 4, "path": "checkpoint-00001.safetensors",
    "metrics": {"loss": 0.5}, "trace_root": "0x" + "ab" * 32, "seconds": 1.0,
}  # fmt: skip


def step(number: int, **fields: Any) -> dict[str, Any]:
    return {"type": "step", "step": number, "metrics": {"loss": 0.5}, "seconds": 0.1} | fields


def hear(*said: Any) -> list[Any]:
    conversation = Conversation(first=1, last=2, checkpoint_every=4)
    return [conversation.hear(json.dumps(message).encode()) for message in said]


def test_a_proper_conversation() -> None:
    second = CHECKPOINT | {"index": 2, "step": 8, "path": "checkpoint-00002.safetensors"}
    heard = hear(MEASURED, READY, step(1), step(4), CHECKPOINT, step(5), second, {"type": "done"})
    assert [type(message) for message in heard] == [
        Measured,
        Ready,
        Stepped,
        Stepped,
        Checkpoint,
        Stepped,
        Checkpoint,
        Done,
    ]


@pytest.mark.parametrize(
    "said",
    [
        [{"type": "nonsense"}],
        ["ready"],
        [READY | {"units": 0}],
        [READY | {"units": -1}],
        [READY | {"more": 1}],
        [READY | {"numerics": {}}],
        [READY, MEASURED],  # what a recipe says of its numerics comes too late
        [step(1)],
        [CHECKPOINT],
        [{"type": "done"}],
        [READY, READY],
        [READY, {"type": "done"}],
        [READY, step(0)],
        [READY, step(2), step(2)],
        [READY, step(5)],
        [READY, step(1, metrics={"loss": "x"})],
        [READY, step(1, metrics={str(n): 1 for n in range(33)})],
        [READY, step(1, seconds=-1)],
        [READY, CHECKPOINT | {"index": 2}],
        [READY, CHECKPOINT | {"step": 3}],
        [READY, CHECKPOINT | {"path": "../checkpoint-00001.safetensors"}],
        [READY, CHECKPOINT | {"path": "/etc/passwd"}],
        [READY, CHECKPOINT | {"trace_root": "0x12"}],
        [READY, CHECKPOINT, CHECKPOINT],
        [READY, {"type": "failed", "kind": "odd", "message": ""}],
        [READY, {"type": "failed", "kind": "nan", "message": "x" * 5000}],
    ],
)
def test_anything_else_is_a_failure(said: list[Any]) -> None:
    with pytest.raises(Failure, match="the training process sent") as caught:
        hear(MEASURED, *said)
    assert caught.value.kind == "protocol"


@pytest.mark.parametrize(
    "said",
    [
        MEASURED | {"numerics": {"a": [1]}},
        MEASURED | {"numerics": {str(n): 1 for n in range(100)}},
        MEASURED | {"numerics": {"torch": 10**4000}},  # which no canonical JSON can hold
        READY,
        step(1),
        {"type": "done"},
    ],
)
def test_first_of_all_a_process_says_its_numerics(said: Any) -> None:
    with pytest.raises(Failure, match="the training process sent"):
        hear(said)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\xff",
        b'{"type":"step","step":1,"metrics":{"a":NaN},"seconds":0}',
        b'{"type":"step","step":1,"metrics":{"a":1e999},"seconds":0}',
        b'{"type":"step","step":' + b"9" * 10_000 + b',"metrics":{},"seconds":0}',
        b'{"type":"ready","lease":"0x01","flops":1,"units":1,"parameters":1,"numerics":{}}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
    ],
)
def test_what_is_no_json_is_a_failure(line: bytes) -> None:
    with pytest.raises(Failure, match="a line that is no message"):
        Conversation(first=1, last=1, checkpoint_every=1).hear(line)


def test_words_that_would_steer_a_terminal_do_not(tmp_path: Path) -> None:
    said = {"type": "failed", "kind": "nan", "message": "\x1b[2J\u202egone\r\n", "traceback": "\x07bell"}
    (message,) = hear(said)
    assert message.message == "\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}gone\n\n"
    assert message.traceback == "\N{REPLACEMENT CHARACTER}bell"
    log = CappedLog(tmp_path / "log.txt", limit=100)
    log.write(b"50 %\r100 %\x1b]0;title\x07")
    assert log.tail() == "50 %\n100 %\N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER}"


def test_an_exception_becomes_a_message_whatever_it_says() -> None:
    message = failed(ValueError("bad \udcff " + "x" * 10_000))
    assert (message.kind, len(message.message)) == ("exception", 4_000)
    assert message.model_dump_json()
    assert failed(MemoryError()).kind == "memory"
    assert failed(RuntimeError("DefaultCPUAllocator: can't allocate memory")).kind == "memory"
    assert failed(Failure("nan", "loss is nan", "lower the rate")).hint == "lower the rate"
