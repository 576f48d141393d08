"""Lists of what other people said, as a market gives them: one bad item must not hide those beside it."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import structlog
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from contracts.api.bodies import Page
from contracts.errors import UserError, first_sentence
from contracts.program.logs import ToldOnce

M = TypeVar("M", bound=BaseModel)
_NAMES = ("id", "order", "lease", "job", "provider", "number")  # fields that name an item, if it has them

log = structlog.get_logger()


class UnreadableItem(UserError):
    """Something in a list that is of use only if it is whole."""


class Answer(Protocol):
    """An HTTP answer."""

    @property
    def content(self) -> bytes: ...


class ListReader:
    """Reads pages item by item. What can't be read is skipped, counted, and named in the log once."""

    def __init__(self) -> None:
        self.on_skipped: Callable[[], None] = lambda: None
        self._told = ToldOnce()

    def read(self, model: type[M], path: str, response: Answer, *, whole: bool = False) -> Page[M]:
        """The page that is the answer to a request of `path`. Raises UserError if it is not a page at all.

        `whole`: nothing is to be skipped; raises UnreadableItem.
        """
        try:
            return Page[model].model_validate_json(response.content)  # type: ignore[valid-type]
        except ValidationError:
            page = _loosely(response.content)
        found: list[M] = []
        for item in page.items:
            try:
                found.append(model.model_validate(item))
            except (ValueError, RecursionError) as error:
                if whole:
                    raise UnreadableItem(
                        f"this program can't read {_name(item)} of {path}: {first_sentence(error)}",
                        "It may be older than the market, or newer than that item: try another version of gpumarket.",
                    ) from error
                self._skip(item, error, path)
        return Page(items=found, next=page.next)

    def _skip(self, item: Any, error: Exception, path: str) -> None:
        self.on_skipped()
        name, problem = _name(item), first_sentence(error)
        if self._told.is_new(f"{path} {name} {problem}"):
            log.warning(
                "market.unreadable_item", path=path, item=name, problem=problem,
                hint="skipped; if there are many, this program may be older than the market",
            )  # fmt: skip


def _loosely(content: bytes) -> Page[Any]:
    try:
        return Page[Any].model_validate(from_json(content))
    except ValueError as error:
        raise misfit(error) from error


def parse_answer(model: type[M], response: Answer) -> M:
    """The answer as that body. Raises UserError."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise misfit(error) from error


def misfit(error: Exception) -> UserError:
    """For an answer that is no market's, or another version's."""
    return UserError(
        f"the market's answer does not fit this version of gpumarket: {first_sentence(error)}",
        "Are market and this program of the same version?",
    )


def _name(item: Any) -> str:
    """By what it would be found: its id, or that of the lease which a report or claim in it is about."""
    if isinstance(item, dict):
        for part in (item, item.get("report"), item.get("claim"), item.get("note")):
            if isinstance(part, dict) and (names := [name for name in _NAMES if name in part]):
                return ", ".join(f"{name} {part[name]!s:.80}" for name in names)
    return repr(item)[:80]
