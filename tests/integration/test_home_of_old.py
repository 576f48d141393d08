"""What an earlier version left on disk, under this one.

Protocol 2 has another escrow, so what lives on one of protocol 1 goes on with a program of that version only: it
is told, and left alone. The archive was made as make_home.py tells.
"""

from pathlib import Path

import pytest

from tests.golden.make_home import OF_PROTOCOL_1, unpack


@pytest.mark.long
def test_a_home_of_protocol_1_is_told_and_left_alone(tmp_path: Path) -> None:
    place, facts = unpack(tmp_path, OF_PROTOCOL_1)
    with place:
        place.start_chain()
        move(place.home / "config.toml", facts["rpc_url"], place.rpc_url)
        before = contents(place.home)
        for command in (
            ("market", "serve", "--port", "0"),
            ("provider", "start", "--key", "rig"),
            ("approver", "start", "--key", "approver"),
            ("wallet", "withdraw", "1", "--key", "me"),
        ):
            with pytest.raises(AssertionError, match="is of version '1' of 'gpumarket', this program signs for"):
                place.run(*command)
        assert contents(place.home) == before
        assert place.run("wallet", "address", "me").startswith("0x")


def contents(home: Path) -> dict[str, bytes]:
    """What is worth anything: not logs and locks."""
    kept = (path for path in home.rglob("*") if path.is_file() and path.suffix not in (".log", ".lock"))
    return {str(path.relative_to(home)): path.read_bytes() for path in kept}


def move(file: Path, before: str, now: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, now))
