"""The market's HTTP API. `create_app()` alone gives an app without a market behind it, for its schema."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from contracts.api.client import IDEMPOTENCY_KEY
from market.api import health, metrics
from market.api.access import Callers
from market.api.dependencies import get_caller
from market.api.errors import PROBLEMS, ProblemBody, add_handlers
from market.api.idempotency import STORES_NOTHING, KeepAnswer, once
from market.api.metrics import StateCollector
from market.api.middleware import BodyLimit, RequestLog
from market.api.request_ids import HEADER as REQUEST_ID
from market.api.request_ids import bind_ids
from market.api.routes import audits, blobs, epochs, info, jobs, keys, leases, orders, progress
from market.api.suggestions import check_query
from market.runtime.context import Context
from market.services.jobs import count_by_status
from market.services.quoting.pricing import Offers

DESCRIPTION = """A decentralized marketplace for GPU training: escrowed jobs, checkpointed work, paid by the checkpoint.

Nothing here needs a login: orders, claims, approvals and reports carry signatures (EIP-712), and the money is in a
contract that checks them again. Files, checkpoints and logs are for those who have to do with a job, and uploads for
those who have a deposit: such requests carry a signed token that is good for some minutes. Posting the same message
twice is the same as once. Money is decimal text in the token's smallest unit, times are RFC 3339, hashes 0x-hex."""


# Before each route, in this order: what is refused here costs little, and what `once` lets through is not refused here.
_FIRST = [Depends(one) for one in (bind_ids, get_caller, check_query, once)]
_KEY_PARAMETER = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "description": "of your making, such as a UUID: for 24 hours the same request with it gets the same answer",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
}


def create_app(context: Context | None = None) -> FastAPI:
    app = FastAPI(
        title="gpumarket",
        version=version("gpumarket"),
        summary="Market of GPU training",
        description=DESCRIPTION,
        generate_unique_id_function=_operation_id,
        # Two schemas for one body would only differ in what may be left out.
        separate_input_output_schemas=False,
    )
    app.state.context = context
    if context is not None:
        app.state.callers = Callers(context)
        app.state.offers = Offers(context)
        context.metrics.registry.register(StateCollector(context, count_by_status))
    v1 = APIRouter(prefix="/v1", responses=PROBLEMS, dependencies=_FIRST)
    for room in (info, orders, jobs, leases, progress, audits, epochs, blobs, keys):
        v1.include_router(room.router)
    app.include_router(v1)
    app.include_router(health.router, responses=PROBLEMS)
    app.include_router(metrics.router)
    add_handlers(app)
    app.add_middleware(KeepAnswer)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestLog)
    if context is not None and context.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=context.settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type", IDEMPOTENCY_KEY, "Range", REQUEST_ID],
            expose_headers=["Content-Range", "ETag", "Idempotency-Replayed", "Retry-After", REQUEST_ID],
            max_age=3600,
        )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _operation_id(route: APIRoute) -> str:
    return f"{route.name}_head" if "HEAD" in (route.methods or ()) else route.name


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's schema, with problem bodies where it would put its own validation errors."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            separate_input_output_schemas=False,
        )
        components = schema["components"]["schemas"]
        components.pop("HTTPValidationError", None)
        components.pop("ValidationError", None)
        components["ProblemBody"] = ProblemBody.model_json_schema()
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                operation["responses"].pop("422", None)
                if method == "post" and path not in STORES_NOTHING:
                    operation.setdefault("parameters", []).append(_KEY_PARAMETER)
        app.openapi_schema = schema
    return app.openapi_schema
