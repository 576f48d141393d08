"""Errors meant for the person at the keyboard."""


class UserError(Exception):
    """Something that the user can put right: `gpumarket` shows one line and a hint, and no traceback.

    `message` says what was wrong, with the value; `hint` says what to do; `trace`, lines that come before both, where
    in a program of the user's own.
    """

    trace = ""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def first_sentence(error: Exception) -> str:
    """What is wrong with something that could not be read: field and reason, short enough for a line."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        return f"{where + ': ' if where else ''}{message}"[:300]
    return f"{type(error).__name__}: {error}"[:300]
