"""Files of checkpoints that do not hold what they should are refused."""

from pathlib import Path

import pytest

from contracts.commitment import trace_root
from worker.training.checkpoints import check_trace, checkpoint_state_root
from worker.training.failures import Failure


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
