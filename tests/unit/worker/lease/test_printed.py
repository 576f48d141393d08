"""What was printed and not told: all of it, once, in lines; too much is said to be too much."""

from pathlib import Path

from worker.lease import printed
from worker.lease.printed import Printed


def plain(folder: Path) -> Printed:
    return Printed(folder / "untold.log", lambda: None)


def told(kept: Printed, most: int = 1000, *, whole: bool = False) -> list[str]:
    parts = []
    while part := kept.next(most, whole=whole):
        parts.append(part.text)
        kept.told(part)
    return parts


def test_a_line_that_is_not_over_waits(tmp_path: Path) -> None:
    kept = plain(tmp_path)
    kept.write(b"one\ntwo\r30 %\rfo")
    assert told(kept) == ["one\ntwo\n30 %\n"]
    kept.write(b"ur\nfive")
    assert told(kept) == ["four\n"]
    assert told(kept, whole=True) == ["five"]
    assert told(kept, whole=True) == []


def test_long_text_is_cut_at_lines_and_a_long_line_between_characters(tmp_path: Path) -> None:
    kept = plain(tmp_path)
    kept.write(b"12345\n" * 5)
    assert told(kept, 14) == ["12345\n12345\n", "12345\n12345\n", "12345\n"]
    kept.write("€€€€€€\n".encode())
    assert "".join(told(kept, 8)) == "€€€€€€\n"
    assert told(kept, 8) == []


def test_it_outlives_the_process_that_kept_it(tmp_path: Path) -> None:
    first = plain(tmp_path)
    first.write(b"one\n")
    first.write(b"two\n")
    part = first.next(4, whole=False)
    assert part
    first.told(part)
    second = plain(tmp_path)
    second.write(b"three\n")
    assert told(second) == ["two\nthree\n"]
    assert not (tmp_path / "untold.log").exists()


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    kept = plain(tmp_path)
    kept.write(b"a" * 9 + b"\n")
    part = kept.next(1000, whole=False)
    kept.write(b"b" * (printed.MAX_BYTES - 1) + b"\n")
    assert part
    kept.told(part)  # it had been taken before it was dropped
    (text,) = told(kept, printed.MAX_BYTES)
    assert text == "b" * (printed.MAX_BYTES - 1) + "\n"
    kept.write(b"c" * printed.MAX_BYTES)
    kept.write(b"d" * 10 + b"\n")
    assert told(kept, 2 * printed.MAX_BYTES)[0].startswith("[... 11 bytes dropped ...]\nccc")
