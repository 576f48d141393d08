"""Texts that come from elsewhere: names, reasons, logs and errors of parties that nobody needs to trust."""


def without_controls(text: str, keep: str = "\n\t") -> str:
    """Without characters that a terminal would obey, or that turn the rest of a line around; those of `keep` stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)
