"""Typed client of the market's HTTP API. Raises Problem for what the market refuses, Unreachable without an answer."""

import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import stamina
from pydantic import BaseModel

from contracts.api.access import Signer
from contracts.api.answers import (
    broke_off,
    clock_ahead,
    foreign_content,
    is_of_a_market,
    no_answer,
    raise_problem,
    retry_after,
)
from contracts.api.auditing.notes import AuditNoteIn, AuditNoteOut
from contracts.api.bodies import (
    AccountOut,
    ApprovalIn,
    AskIn,
    AskOut,
    AuditorIn,
    AuditorOut,
    BidIn,
    CheckpointOut,
    EncryptionKeyIn,
    JobOut,
    JobSummary,
    KeyGrantIn,
    LeaseOut,
    ListedLease,
    ProgressIn,
    RejectionIn,
    ReportIn,
    ReportOut,
)
from contracts.api.epochs import ClassPrice, EpochAsk, EpochBid, EpochOut
from contracts.api.info import Info
from contracts.api.lists import ListReader, parse_answer
from contracts.api.offers import OfferOut, OffersIn
from contracts.api.problems import Code, Problem
from contracts.api.protocol import INFO, Spoken
from contracts.api.quotes import QuoteIn, QuoteOut
from contracts.api.throttle import CHUNK, Throttle, chunks_of
from contracts.errors import UserError
from contracts.job.file import hash_file
from contracts.job.spec import FileRef
from contracts.orders import AuditKind
from contracts.proxies import proxy_of

M = TypeVar("M", bound=BaseModel)
LONG_PAGE = 500  # the most that a market gives at once
IDEMPOTENCY_KEY = "Idempotency-Key"  # header of a POST that may be sent again

# What was in vain is told once, by the exception in the end: not by a log line for each try.
stamina.instrumentation.set_on_retry_hooks(())


class Unreachable(UserError):
    """The market did not answer; the same call may work later."""


class MarketClient:
    """All calls are safe to repeat: orders, claims and blobs are named by their content.

    Blobs and logs are not for everybody: `signer` makes the access tokens for them. `timeout` (seconds) is for an
    answer, and for waiting when the market says that it is asked too often.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        attempts: int = 3,
        signer: Signer | None = None,
        *,
        uploads: Throttle | None = None,
        downloads: Throttle | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        if not re.match(r"https?://[^/]", self.url):
            raise UserError(
                f"{url!r} is not a market's address", "give it with http:// or https://, such as http://127.0.0.1:8600"
            )
        self._proxy = proxy_of(self.url)
        try:
            self._http = httpx2.Client(base_url=self.url, timeout=timeout)
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            message = f"a proxy that the environment names can't be used: {error}"
            raise UserError(message, "look at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY") from error
        self._timeout, self._attempts = timeout, attempts
        self.signer = signer
        self.clock_ahead: float | None = None  # seconds that this machine's is before the market's, by its last answer
        self.lists, self._spoken = ListReader(), Spoken(f"the market at {self.url}")
        self._uploads, self._downloads = uploads, downloads  # of blobs

    @property
    def clock(self) -> float | None:
        """The market's, in UTC seconds; None if it has not answered yet, or doesn't tell."""
        return None if self.clock_ahead is None else time.time() - self.clock_ahead

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "MarketClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------- plumbing

    def _request(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        response = self._send(method, path, **kwargs)
        self._spoken.check(response, lambda: self._send("GET", INFO))
        raise_problem(response, self._proxy)
        if foreign := foreign_content(response, self._proxy):
            raise UserError(*foreign)
        return response

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        """Whatever the answer is. Raises Unreachable."""
        try:
            for attempt in stamina.retry_context(
                on=httpx2.TransportError, attempts=self._attempts, wait_initial=0.1, wait_max=2.0
            ):
                with attempt:
                    response = self._patiently(lambda: self._http.request(method, path, **kwargs))
        except httpx2.TransportError as error:
            raise Unreachable(*no_answer(self.url, error, self._proxy)) from error
        return response

    def _patiently(self, send: Callable[[], httpx2.Response]) -> httpx2.Response:
        """The answer to a request that is sent again when the market says so, within the timeout."""
        gives_up = time.monotonic() + self._timeout
        while True:
            response = send()
            self.clock_ahead = clock_ahead(response.headers)
            pause = retry_after(response)
            if pause is None or time.monotonic() + pause > gives_up:
                return response
            response.close()
            time.sleep(pause)

    def _reading(self, job: str) -> dict[str, str]:
        return self.signer.reading(job) if self.signer else {}

    def _writing(self) -> dict[str, str]:
        return self.signer.writing() if self.signer else {}

    def _get(self, model: type[M], path: str, headers: dict[str, str] | None = None, **params: Any) -> M:
        given = {key: value for key, value in params.items() if value is not None}
        return parse_answer(model, self._request("GET", path, params=given, headers=headers))

    def _post(self, model: type[M], path: str, body: BaseModel, *, stores: bool = True) -> M:
        content = body.model_dump_json(by_alias=True)
        headers = {"content-type": "application/json"}
        if stores:
            headers[IDEMPOTENCY_KEY] = str(uuid.uuid4())
        return parse_answer(model, self._request("POST", path, content=content, headers=headers))

    def _pages(
        self, model: type[M], path: str, headers: dict[str, str] | None = None, *, whole: bool = False, **params: Any
    ) -> Iterator[M]:
        after: str | None = None
        while True:
            given = {key: value for key, value in {"after": after, **params}.items() if value is not None}
            page = self.lists.read(model, path, self._request("GET", path, params=given, headers=headers), whole=whole)
            yield from page.items
            if page.next is None:
                return
            after = page.next

    # ------------------------------------------------------------- reads

    def info(self) -> Info:
        return self._get(Info, INFO)

    def account(self, address: str) -> AccountOut:
        return self._get(AccountOut, f"/v1/accounts/{address}")

    def asks(self, *, provider: str | None = None, status: str | None = None) -> Iterator[AskOut]:
        return self._pages(AskOut, "/v1/asks", provider=provider, status=status)

    def ask(self, id: str) -> AskOut:
        return self._get(AskOut, f"/v1/asks/{id}")

    def jobs(
        self,
        *,
        client: str | None = None,
        status: str | None = None,
        tip: str | None = None,
        prefix: str | None = None,
        name: str | None = None,
    ) -> Iterator[JobSummary]:
        """`tip`: those with a checkpoint that leads to it; `prefix`: how their ids start, with 0x."""
        return self._pages(JobSummary, "/v1/jobs", client=client, status=status, tip=tip, prefix=prefix, name=name)

    def job(self, id: str) -> JobOut:
        return self._get(JobOut, f"/v1/jobs/{id}")

    def checkpoints(self, job: str) -> Iterator[CheckpointOut]:
        """Of one job, by index, the reported ones too."""
        return self._pages(CheckpointOut, f"/v1/jobs/{job}/checkpoints")

    def reports(self, job: str) -> Iterator[ReportOut]:
        """Those of one job that the signer may read, with their texts."""
        return self._pages(ReportOut, f"/v1/jobs/{job}/reports", headers=self._reading(job))

    def encryption_key(self, account: str) -> EncryptionKeyIn | None:
        """None if the account has registered none. The signature is for the caller to check."""
        try:
            return self._get(EncryptionKeyIn, f"/v1/keys/{account}")
        except Problem as problem:
            if problem.status == 404:
                return None
            raise

    def grants(self, job: str, reader: str) -> Iterator[KeyGrantIn]:
        """Of a sealed job's key to one reader. The signatures are for the caller to check."""
        return self._pages(KeyGrantIn, f"/v1/jobs/{job}/grants", reader=reader)

    def leases(
        self, *, provider: str | None = None, approver: str | None = None, live: bool | None = None
    ) -> Iterator[ListedLease]:
        return self._pages(ListedLease, "/v1/leases", provider=provider, approver=approver, live=live)

    def lease(self, id: str) -> LeaseOut:
        return self._get(LeaseOut, f"/v1/leases/{id}")

    def pending_progress(self, approver: str) -> Iterator[CheckpointOut]:
        """Checkpoints that wait for this approver's word, oldest first."""
        return self._pages(CheckpointOut, "/v1/progress", approver=approver, status="reported")

    def release_requests(self, approver: str) -> Iterator[ReportOut]:
        """`release` and `failed` reports of live leases that wait for this approver's Approval(last). Without texts."""
        return self._pages(ReportOut, "/v1/reports", approver=approver, waiting=True)

    def audit_notes(
        self, *, job: str | None = None, lease: str | None = None, approver: str | None = None,
        provider: str | None = None, kind: AuditKind | None = None,
    ) -> Iterator[AuditNoteOut]:  # fmt: skip
        """Oldest first. The signatures are for the caller to check: `contracts.api.auditing.notes.check_note`."""
        return self._pages(
            AuditNoteOut, "/v1/audits", job=job, lease=lease, approver=approver, provider=provider, kind=kind
        )

    def epochs(self) -> Iterator[EpochOut]:
        """Newest first."""
        return self._pages(EpochOut, "/v1/epochs")

    def epoch(self, number: int) -> EpochOut:
        return self._get(EpochOut, f"/v1/epochs/{number}")

    def epoch_bids(self, number: int) -> Iterator[EpochBid]:
        """The Bids of an epoch's set. Raises UnreadableItem: with a gap it would be another set."""
        return self._pages(EpochBid, f"/v1/epochs/{number}/bids", whole=True, limit=LONG_PAGE)

    def epoch_asks(self, number: int) -> Iterator[EpochAsk]:
        """The Asks of an epoch's set. Raises as above."""
        return self._pages(EpochAsk, f"/v1/epochs/{number}/asks", whole=True, limit=LONG_PAGE)

    def epoch_prices(self, number: int, *, whole: bool = False) -> Iterator[ClassPrice]:
        """The prices in force after an epoch; `whole`: raises as above."""
        return self._pages(ClassPrice, f"/v1/epochs/{number}/prices", whole=whole, limit=LONG_PAGE)

    # ------------------------------------------------------------- writes

    def quote(self, body: QuoteIn) -> QuoteOut:
        return self._post(QuoteOut, "/v1/quote", body, stores=False)

    def offers(self, body: OffersIn) -> Iterator[OfferOut]:
        """Machines on offer, page by page."""
        while True:
            content, headers = body.model_dump_json(by_alias=True), {"content-type": "application/json"}
            response = self._request("POST", "/v1/offers", content=content, headers=headers)
            page = self.lists.read(OfferOut, "/v1/offers", response)
            yield from page.items
            if page.next is None:
                return
            body = body.model_copy(update={"after": page.next})

    def post_ask(self, body: AskIn) -> AskOut:
        return self._post(AskOut, "/v1/asks", body)

    def post_bid(self, body: BidIn) -> JobOut:
        return self._post(JobOut, "/v1/bids", body)

    def post_progress(self, body: ProgressIn) -> CheckpointOut:
        return self._post(CheckpointOut, "/v1/progress", body)

    def post_approval(self, body: ApprovalIn) -> LeaseOut:
        return self._post(LeaseOut, "/v1/approvals", body)

    def post_rejection(self, body: RejectionIn) -> LeaseOut:
        return self._post(LeaseOut, "/v1/rejections", body)

    def name_auditor(self, body: AuditorIn) -> AuditorOut:
        return self._post(AuditorOut, f"/v1/jobs/{body.grant.job}/auditors", body)

    def put_key(self, body: EncryptionKeyIn) -> EncryptionKeyIn:
        content, headers = body.model_dump_json(by_alias=True), {"content-type": "application/json"}
        path = f"/v1/keys/{body.key.account}"
        return parse_answer(EncryptionKeyIn, self._request("PUT", path, content=content, headers=headers))

    def post_grant(self, body: KeyGrantIn) -> KeyGrantIn:
        return self._post(KeyGrantIn, f"/v1/jobs/{body.grant.job}/grants", body)

    def post_report(self, body: ReportIn) -> ReportOut:
        return self._post(ReportOut, "/v1/reports", body)

    def post_audit_note(self, body: AuditNoteIn) -> AuditNoteOut:
        return self._post(AuditNoteOut, "/v1/audits", body)

    # ------------------------------------------------------------- blobs

    def has_blob(self, sha256: str) -> bool:
        """Whether the signer has uploaded it, and it is still there."""
        path, headers = f"/v1/blobs/{sha256}", self._writing()
        response = self._send("HEAD", path, headers=headers)
        status = response.status_code
        if status < 300 or status == 404 or not is_of_a_market(response):
            # What is none of the market's, as of a proxy that lets no HEAD pass, is told by the upload's answer.
            return status < 300
        with closing(self._http.send(self._http.build_request("GET", path, headers=headers), stream=True)) as told:
            if told.status_code >= 400:  # the same refusal, in words: a HEAD has no body for them
                told.read()
                raise_problem(told, self._proxy)
        raise Problem(status, Code.INTERNAL, f"{self.url} refuses HEAD {path} with HTTP status {status}")

    def put_blob(self, path: Path, ref: FileRef | None = None) -> FileRef:
        """Upload a file unless the market has it from this signer already. `ref`: its size and hash, if known."""
        ref = ref or hash_file(path)
        if not self.has_blob(ref.sha256):
            # Read anew on each attempt: a generator that a failed attempt has used up can't be sent again.
            for attempt in stamina.retry_context(on=Unreachable, attempts=self._attempts):
                with attempt:
                    self._put(ref, path)
        return ref

    def _put(self, ref: FileRef, path: Path) -> None:
        try:
            headers = {"content-length": str(ref.size), "content-type": "application/octet-stream"} | self._writing()
            response = self._patiently(
                lambda: self._http.put(
                    f"/v1/blobs/{ref.sha256}", content=chunks_of(path, self._uploads), headers=headers
                )
            )
        except httpx2.TransportError as error:
            raise Unreachable(*broke_off(f"upload of {path.name} to {self.url}", error, self._proxy)) from error
        raise_problem(response, self._proxy)

    def get_blob(self, ref: FileRef, target: Path, *, job: str) -> Path:
        """Download a blob of a job (the Bid's id) that the signer may read.

        `target` appears only if size and hash are right. Raises Problem(blob_mismatch).
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        digest, size = hashlib.sha256(), 0
        try:
            request = self._http.build_request("GET", f"/v1/blobs/{ref.sha256}", headers=self._reading(job))
            response = self._patiently(lambda: self._http.send(request, stream=True))
            with closing(response), partial.open("wb") as file:
                if response.status_code != 200:
                    response.read()
                    raise_problem(response, self._proxy)
                for chunk in response.iter_bytes(self._downloads.chunk if self._downloads else CHUNK):
                    if self._downloads:
                        self._downloads.wait(len(chunk))
                    digest.update(chunk)
                    size += len(chunk)
                    if size > ref.size:
                        break
                    file.write(chunk)
            if size != ref.size or "0x" + digest.hexdigest() != ref.sha256:
                raise Problem(
                    502,
                    Code.BLOB_MISMATCH,
                    f"blob {ref.sha256} from {self.url} is not what its name says; not kept",
                )
            partial.replace(target)
        except httpx2.TransportError as error:
            what = f"download of blob {ref.sha256} from {self.url}"
            raise Unreachable(*broke_off(what, error, self._proxy)) from error
        finally:
            partial.unlink(missing_ok=True)
        return target
