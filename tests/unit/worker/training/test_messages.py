"""What a training process may say, and the files around it. It may be hostile."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from contracts.commitment import trace_root
from worker.sandbox.limits import MB, Limits, check_usage, descendants, folder_usage
from worker.sandbox.log import CappedLog
from worker.training.checkpoints import check_trace, checkpoint_state_root
from worker.training.failures import Failure
from worker.training.harness import failed
from worker.training.messages import Checkpoint, Conversation, Done, Ready, Stepped

READY = {"type": "ready", "flops": 10, "units": 1, "parameters": 5, "numerics": {"torch": "2.13.0"}}
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
    heard = hear(READY, step(1), step(4), CHECKPOINT, step(5), second, {"type": "done"})
    assert [type(message) for message in heard] == [Ready, Stepped, Stepped, Checkpoint, Stepped, Checkpoint, Done]


@pytest.mark.parametrize(
    "said",
    [
        [{"type": "nonsense"}],
        ["ready"],
        [READY | {"units": 0}],
        [READY | {"units": -1}],
        [READY | {"more": 1}],
        [READY | {"numerics": {"a": [1]}}],
        [READY | {"numerics": {str(n): 1 for n in range(100)}}],
        [READY | {"numerics": {"torch": 10**4000}}],  # which no canonical JSON can hold
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
        hear(*said)
    assert caught.value.kind == "protocol"


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


def test_a_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log = CappedLog(tmp_path / "log.txt", limit=100)
    log.write(b"the beginning ")
    for number in range(1000):
        log.write(b"%05d " % number)
    log.close()
    text = (tmp_path / "log.txt").read_text()
    assert text.startswith("the beginning 00000") and text.endswith("00998 00999 ")
    assert "bytes dropped" in text and len(text) < 160
    assert log.tail(12) == "00998 00999 "
    assert log.tail() == text


def test_a_short_log_is_whole(tmp_path: Path) -> None:
    log = CappedLog(tmp_path / "log.txt", limit=100)
    log.write(b"all of it")
    log.close()
    assert (tmp_path / "log.txt").read_text() == log.tail() == "all of it"


def test_a_trace_must_have_its_root(tmp_path: Path) -> None:
    digests = [bytes([n]) * 32 for n in range(3)]
    path = tmp_path / "trace"
    path.write_bytes(b"".join(digests))
    check_trace(path, steps=3, root=trace_root(digests))
    for steps, root in ((2, trace_root(digests)), (3, bytes(32))):
        with pytest.raises(Failure, match="not the trace"):
            check_trace(path, steps=steps, root=root)
    path.write_bytes(b"x" * 33)
    with pytest.raises(Failure, match="not the trace"):
        check_trace(path, steps=1, root=bytes(32))


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"nothing", None),
        (b"{}", 2**63),
        (b"[" * 50_000, None),
        (b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}', None),
        (b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}}', None),
        (b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[1,0]}}', None),
    ],
)
def test_a_state_that_is_no_safetensors_file_is_refused(tmp_path: Path, header: bytes, length: int | None) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header)
    with pytest.raises(Failure, match=r"state\.safetensors: not a safetensors file"):
        checkpoint_state_root(path)


def test_usage_over_a_limit_is_a_failure(tmp_path: Path) -> None:
    check_usage(descendants(os.getpid()), tmp_path, Limits(memory_mb=1 << 20, processes=10_000))
    for kind, limits in {
        "memory": Limits(memory_mb=1),
        "processes": Limits(memory_mb=1 << 20, processes=0),
    }.items():
        with pytest.raises(Failure) as caught:
            check_usage(descendants(os.getpid()), tmp_path, limits)
        assert caught.value.kind == kind


def test_disk_use_counts_every_folder_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(100_000))
    (tmp_path / "everything").symlink_to("/usr")
    files, used = folder_usage(tmp_path, Limits())
    assert files == 4 and 100_000 <= used < 150_000


@pytest.mark.parametrize("limits", [Limits(disk_mb=1), Limits(files=10)])
def test_counting_ends_where_it_is_too_much(tmp_path: Path, limits: Limits) -> None:
    for number in range(300):
        (tmp_path / str(number)).write_bytes(bytes(8192))
    files, used = folder_usage(tmp_path, limits)
    assert files < 300
    assert files > limits.files or used > limits.disk_mb * MB
