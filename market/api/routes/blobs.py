"""Blobs: files of jobs and states of checkpoints, named by the SHA-256 of their bytes."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from contracts.api.problems import Code, Problem
from contracts.job.spec import FileRef
from market.api.dependencies import HashPath, Market, ReadingCaller, WritingCaller
from market.runtime.context import Context
from market.services import access, blobs
from market.store.blobs import CHUNK

router = APIRouter(tags=["blobs"], prefix="/blobs")

_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


class BlobResponse(FileResponse):
    chunk_size = CHUNK


@router.get("/{sha256}", response_class=BlobResponse, responses={200: _BYTES})
def get_blob(market: Market, sha256: HashPath, caller: ReadingCaller) -> Response:
    """A blob of the job that the token is for; `Range` works."""
    reader = access.reader_of(market, caller.token.job, caller.account)
    with market.db.reading() as session:
        access.check_readable(session, reader, sha256)
    if market.blobs.size(sha256) is None:
        raise Problem(
            404,
            Code.NOT_FOUND,
            f"there is no blob {sha256} at this market",
            f"Checkpoints are kept for {market.settings.keep_checkpoint_days:g} days after a job's end, its result "
            f"for {market.settings.keep_result_days:g}.",
        )
    headers = {"etag": f'"{sha256}"', "cache-control": "private, max-age=31536000, immutable"}
    return BlobResponse(market.blobs.path(sha256), headers=headers, media_type="application/octet-stream")


@router.head("/{sha256}", response_class=Response, responses={200: {"description": "It is here"}})
def find_blob(market: Market, sha256: HashPath, caller: WritingCaller) -> Response:
    """Whether the account has uploaded this blob, and need not again."""
    with market.db.reading() as session:
        mine = access.has_uploaded(session, sha256, caller.account)
    size = market.blobs.size(sha256) if mine else None
    if size is None:
        raise Problem(404, Code.NOT_FOUND, f"{caller.account} has no blob {sha256} at this market")
    return Response(headers={"content-length": str(size), "etag": f'"{sha256}"'})


# Asynchronous, because only so can a body be read piece by piece; the disk is written to in threads.
@router.put("/{sha256}", status_code=201, openapi_extra={"requestBody": {"required": True, **_BYTES}})
async def put_blob(market: Market, sha256: HashPath, request: Request, caller: WritingCaller) -> FileRef:
    """Store a blob, if its bytes are what its name says. Else nothing is kept."""
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isascii() and length.isdigit() else None
    with await run_in_threadpool(_begin, market, caller.account, sha256, announced) as upload:
        buffer = bytearray()
        try:
            async for piece in request.stream():
                buffer += piece
                if len(buffer) >= CHUNK:
                    await run_in_threadpool(upload.write, bytes(buffer))
                    buffer.clear()
        except ClientDisconnect as error:
            raise Problem(400, Code.BLOB_MISMATCH, "the upload broke off; nothing was kept") from error
        await run_in_threadpool(upload.write, bytes(buffer))
        return await run_in_threadpool(upload.finish)


def _begin(market: Context, account: str, sha256: str, announced: int | None) -> blobs.Upload:
    if not access.may_write(market, account):
        raise access.not_a_writer(account)
    return blobs.Upload(market, account, sha256, announced)
