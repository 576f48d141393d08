"""Blobs: files of jobs and states of checkpoints, named by the SHA-256 of their bytes."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from contracts.api.problems import Code, Problem
from contracts.jobspec import FileRef
from market.api.dependencies import HashPath, Market
from market.blobs import CHUNK
from market.services import blobs

router = APIRouter(tags=["blobs"], prefix="/blobs")

_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


class BlobResponse(FileResponse):
    chunk_size = CHUNK


@router.get("/{sha256}", response_class=BlobResponse, responses={200: _BYTES})
@router.head("/{sha256}", response_class=BlobResponse, responses={200: {"description": "It is here"}})
def get_blob(market: Market, sha256: HashPath) -> Response:
    """A blob's bytes; `Range` works."""
    size = market.blobs.size(sha256)
    if size is None:
        raise Problem(404, Code.NOT_FOUND, f"there is no blob {sha256} at this market")
    headers = {"etag": f'"{sha256}"', "cache-control": "public, max-age=31536000, immutable"}
    return BlobResponse(market.blobs.path(sha256), headers=headers, media_type="application/octet-stream")


# Asynchronous, because only so can a body be read piece by piece; the disk is written to in threads.
@router.put("/{sha256}", status_code=201, openapi_extra={"requestBody": {"required": True, **_BYTES}})
async def put_blob(market: Market, sha256: HashPath, request: Request) -> FileRef:
    """Store a blob, if its bytes are what its name says. Else nothing is kept."""
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isascii() and length.isdigit() else None
    with await run_in_threadpool(market.blobs.incoming, sha256, announced) as blob:
        buffer = bytearray()
        try:
            async for piece in request.stream():
                buffer += piece
                if len(buffer) >= CHUNK:
                    await run_in_threadpool(blob.write, bytes(buffer))
                    buffer.clear()
        except ClientDisconnect as error:
            raise Problem(400, Code.BLOB_MISMATCH, "the upload broke off; nothing was kept") from error
        await run_in_threadpool(blob.write, bytes(buffer))
        size = await run_in_threadpool(blob.finish)
    await run_in_threadpool(blobs.remember, market, sha256, size)
    return FileRef(sha256=sha256, size=size)
