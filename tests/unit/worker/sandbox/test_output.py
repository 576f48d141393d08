"""What is taken from a folder that a stranger's program writes to."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.sandbox.output import OutputFolder
from worker.training.failures import Failure


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    return OutputFolder(tmp_path / "run")


def test_what_is_taken_lies_out_of_reach(output: OutputFolder) -> None:
    (output.path / "state").write_bytes(b"abc")
    taken = output.take("state", limit=3)
    assert taken.parent == output.path.parent and taken.read_bytes() == b"abc"


def gone(path: Path) -> None:
    shutil.rmtree(path)


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"")


def a_link(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to("/nowhere")


@pytest.mark.parametrize("spoil", [gone, a_file, a_link])
def test_an_output_folder_that_cant_be_opened_is_the_recipes_failure(
    output: OutputFolder, spoil: Callable[[Path], None]
) -> None:
    spoil(output.path)
    with pytest.raises(Failure, match="can't open the output folder") as caught:
        output.take("state", limit=3)
    assert caught.value.kind == "protocol"
    assert not list(output.path.parent.glob("*.partial"))


@pytest.mark.parametrize("name", ["missing", "link", "folder"])
def test_what_is_no_file_is_the_recipes_failure(output: OutputFolder, name: str) -> None:
    (output.path / "link").symlink_to("/etc/passwd")
    (output.path / "folder").mkdir()
    with pytest.raises(Failure):
        output.take(name, limit=3)
    assert [path.name for path in output.path.parent.iterdir()] == ["out"]
