"""The names under which a request is found in the log: its own, and that of the job or lease it is about."""

import re
import uuid
from typing import Any

import structlog
from fastapi import Request

HEADER = "x-request-id"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"0x[0-9a-fA-F]{64}")
_COLLECTIONS = {"jobs": "job", "leases": "lease"}
_SAYINGS = ("claim", "approval", "rejection", "report", "note")  # in a POST's body, each of one lease


def request_id(given: str | None) -> str:
    """The one that the caller gave, or a new one."""
    return given if given is not None and _WELL_FORMED.fullmatch(given) else uuid.uuid4().hex[:12]


def current() -> str | None:
    """The id of the request that is being answered."""
    return structlog.contextvars.get_contextvars().get("request")


async def bind_ids(request: Request) -> None:
    """Name the job or lease in all that is logged from here on. Asynchronous: in a thread it would bind nothing."""
    collection = _COLLECTIONS.get(request.url.path.split("/")[2])
    if collection and "id" in request.path_params:
        structlog.contextvars.bind_contextvars(**{collection: request.path_params["id"][:66]})


def bind_lease(body: Any) -> None:
    """The same for the lease that a body, as JSON, is about; nothing if it is about none."""
    for kind in _SAYINGS if isinstance(body, dict) else ():
        said = body.get(kind)
        lease = said.get("lease") if isinstance(said, dict) else None
        if isinstance(lease, str) and _HASH.fullmatch(lease):
            structlog.contextvars.bind_contextvars(lease=lease)
