"""Fields and parameters that nobody knows are refused, with the name of the nearest that somebody does."""

from collections.abc import Iterable
from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin

from fastapi import Request
from pydantic import BaseModel

from contracts.api.problems import Code, Problem


def nearest(name: str, known: Iterable[str]) -> str:
    """What to do about a name that isn't known."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(names) or 'none'}"


async def check_query(request: Request) -> None:
    """Raises Problem for a parameter that the route does not have: to leave it out silently would mislead."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise Problem(
                422, Code.VALIDATION_FAILED, f"there is no parameter {name[:80]!r} here: {nearest(name, known)}"
            )


def known_fields(request: Request, location: tuple[Any, ...]) -> list[str]:
    """The fields of the body's object at `location`, such as ("bid",) or ("grants", 0)."""
    annotation: Any = request.scope["route"].dependant.body_params[0].field_info.annotation
    for part in location:
        model = _model(annotation)
        if model is not None:
            annotation = _fields(model)[part]
        else:  # a list's item, a dict's value
            annotation = get_args(annotation)[-1]
    model = _model(annotation)
    return list(_fields(model)) if model else []


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation names, alone or beside None."""
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """By the names that JSON has."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}
