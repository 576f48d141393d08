"""Texts of strangers, made fit to show."""

from typing import Any

import pytest

from contracts.text import LINE, check_texts, line_of_page


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


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"config": {"text": "a\0b"}}, "spec.config.text: 'a\\x00b' has the character NUL"),
        ({"config": {"a\0b": 1}}, "a name in spec.config: 'a\\x00b' has"),
        ({"config": {"list": [1, [{"deep": "\0"}]]}}, "spec.config.list.deep: '\\x00' has"),
        ({"devices": ("x", "\0")}, "spec.devices: '\\x00' has"),
    ],
)
def test_a_nul_is_named_with_its_place(value: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="NUL") as caught:
        check_texts(value, "spec")
    assert str(caught.value).startswith(says)


def test_any_other_text_is_kept() -> None:
    check_texts({"\x01": ["\uffff", 0, None, True, 1.5, {"\\u0000": "\\0"}]}, "spec")
