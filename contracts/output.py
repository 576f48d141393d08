"""How a command prints what it found."""

from enum import StrEnum


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"
