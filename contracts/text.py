"""Texts that come from elsewhere: names, reasons, logs and errors of parties that nobody needs to trust."""

import re
from html import unescape
from typing import Any

PAGE = 4_096  # characters of an answer that are looked at
LINE = 200


def without_controls(text: str, keep: str = "\n\t") -> str:
    """Without characters that a terminal would obey, or that turn the rest of a line around; those of `keep` stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)


def check_texts(value: Any, where: str) -> None:
    """ValueError for a NUL in a text or a key of some JSON: not every database or program can keep it."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{where}: {value[:LINE]!r} has the character NUL (U+0000) in it")
    if isinstance(value, dict):
        for key, inner in value.items():
            check_texts(key, f"a name in {where}")
            check_texts(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            check_texts(inner, where)


def line_of_page(text: str) -> str:
    """What an HTTP answer that should not have come says to people: its title or its words, in one printable line."""
    text = text[:PAGE]  # a search for what does not end takes the square of it
    title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    return clipped_line(unescape(title[1]) if title else re.sub(r"<[^>]*>", " ", text))


def clipped_line(text: str) -> str:
    """The first 200 characters, with `?` for those that can't be printed."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text[: 50 * LINE].split())[:LINE])
