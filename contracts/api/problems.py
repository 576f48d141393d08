"""Problem codes of the API (RFC 9457, `application/problem+json`) and the exception that carries one."""

from enum import StrEnum
from typing import Any

from contracts.errors import UserError


class Code(StrEnum):
    VALIDATION_FAILED = "validation_failed"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    ORDER_SIGNATURE_INVALID = "order_signature_invalid"
    ORDER_EXPIRED = "order_expired"
    ORDER_REPLAYED = "order_replayed"
    ORDER_CANCELLED = "order_cancelled"
    ORDER_TERMS_INVALID = "order_terms_invalid"
    ORDER_NOT_FOR_THIS_MARKET = "order_not_for_this_market"
    RULES_UNKNOWN = "rules_unknown"
    RESOURCES_MISMATCH = "resources_mismatch"
    JOB_MISMATCH = "job_mismatch"
    BALANCE_SHORT = "balance_short"
    STAKE_SHORT = "stake_short"
    BLOB_MISSING = "blob_missing"
    BLOB_MISMATCH = "blob_mismatch"
    BLOB_TOO_LARGE = "blob_too_large"
    LEASE_NOT_LIVE = "lease_not_live"
    SIGNATURE_INVALID = "signature_invalid"
    PROGRESS_OUT_OF_ORDER = "progress_out_of_order"
    COMMITMENT_MISMATCH = "commitment_mismatch"
    REPORT_STALE = "report_stale"
    ACCESS_TOKEN_MISSING = "access_token_missing"
    ACCESS_TOKEN_INVALID = "access_token_invalid"
    ACCESS_TOKEN_EXPIRED = "access_token_expired"
    NOT_A_READER = "not_a_reader"
    NOT_A_WRITER = "not_a_writer"
    QUOTA_EXCEEDED = "quota_exceeded"
    TOO_MANY_REQUESTS = "too_many_requests"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    REQUEST_IN_PROGRESS = "request_in_progress"
    MARKET_DRAINING = "market_draining"
    MARKET_NOT_READY = "market_not_ready"
    STORAGE_FULL = "storage_full"
    INTERNAL = "internal"


class Problem(UserError):
    """A refusal by the market. `extra` holds the values in question (such as `missing`), as JSON."""

    def __init__(self, status: int, code: Code | str, detail: str, hint: str | None = None, **extra: Any) -> None:
        super().__init__(detail, hint)
        self.status = status
        self.code = str(code)
        self.extra = extra

    def body(self) -> dict[str, Any]:
        body = {
            "type": f"urn:gpumarket:problem:{self.code}",
            "title": self.code.replace("_", " "),
            "status": self.status,
            "detail": self.message,
            "code": self.code,
        }
        if self.hint:
            body["hint"] = self.hint
        return body | self.extra

    @classmethod
    def from_body(cls, status: int, body: dict[str, Any]) -> "Problem":
        known = {"type", "title", "status", "detail", "code", "hint", "request"}
        extra = {key: value for key, value in body.items() if key not in known}
        hint = body.get("hint")
        if status >= 500 and body.get("request"):
            named = f"In the market's log it is request {body['request']}."
            hint = f"{hint} {named}" if hint else named
        return cls(status, body.get("code", "internal"), body.get("detail", "no detail"), hint, **extra)
