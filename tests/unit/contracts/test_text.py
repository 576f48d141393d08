"""Texts of strangers, made fit to show."""

import pytest

from contracts.text import LINE, line_of_page


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("<html><title>Log in &amp; pay</title><body>...</body></html>", "Log in & pay"),
        ("<h1>502</h1>\n<hr>nginx", "502 nginx"),
        ("go\x1b[2Jaway", "go?[2Jaway"),
        ("x" * 10_000, "x" * LINE),
        ("<title>" * 200_000, "<"),
        ("<" * 1_000_000, "<" * LINE),
    ],
)
def test_a_page_in_a_line(page: str, line: str) -> None:
    assert line_of_page(page) == line
