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
