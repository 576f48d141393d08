"""A log keeps its beginning and its end."""

from pathlib import Path

from worker.sandbox.log import CappedLog


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
