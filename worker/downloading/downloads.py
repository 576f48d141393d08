"""Files of a job that come from the web: by the agent, from hosts that its owner allows, never by the sandbox.

What arrives is used only if its size and SHA-256 are the job's. A host's name is looked up once, and the connection
goes to the address that was checked: a name that leads into a private network is refused, whatever it says next time.
"""

import hashlib
import http.client
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import structlog

from contracts.api.client import Unreachable
from contracts.errors import UserError
from contracts.job.spec import FileRef, check_url
from worker.downloading.connection_guard import ConnectionGuard, Interrupted

CHUNK = 1 << 20
MAX_REDIRECTS = 5
ATTEMPTS = 6  # in a row that bring less than LEAST_BYTES
LEAST_BYTES = 1 << 16
PAUSE_SECONDS = (1.0, 30.0)
SOCKET_SECONDS = 30.0
SAY_SECONDS = 10.0
REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (408, 425, 429, 500, 502, 503, 504)  # may work later
GLOBAL_UNICAST, NAT64 = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("64:ff9b::/96")
ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # bits 64 to 95
# What versions of Python call global at one time or another: special purposes, documentation, relays and tunnels.
NO_HOSTS = [
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4",
                    "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]  # fmt: skip

log = structlog.get_logger()


class Cache:
    """Fetched files by their hash, for all leases of a key. At most `max_bytes`; the longest unused go first."""

    def __init__(self, folder: Path, hosts: Collection[str], max_bytes: int) -> None:
        self._folder, self._hosts, self._max_bytes = folder, frozenset(hosts), max_bytes

    def get(self, ref: FileRef, target: Path, stopped: Callable[[], bool] = lambda: False) -> None:
        """Puts the file at `target`. Raises Interrupted if `stopped`.

        Raises Unreachable while network or host are in trouble, another UserError if the file is not what the job says.
        """
        check_host(ref.host or "", self._hosts)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = self._folder / ref.sha256
        with _in_use(kept, stopped):
            if not (kept.is_file() and kept.stat().st_size == ref.size and _sha256(kept, stopped) == ref.sha256):
                self._make_room(ref.size)
                Download(ref, kept, self._hosts, stopped).run()
            os.utime(kept)
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.part")
            with partial.open("wb") as copy:  # a recipe without a sandbox could change what others get
                for chunk in _chunks(kept, stopped):
                    copy.write(chunk)
            partial.replace(target)

    def _make_room(self, size: int) -> None:
        """Of what no lease is just fetching or copying."""
        sizes = {}
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                sizes[path] = (path.stat().st_mtime, path.stat().st_size)
        used = sum(size for _, size in sizes.values())
        for path in sorted(sizes, key=sizes.__getitem__):
            if used + size <= self._max_bytes:
                return
            lock = _locks[path.with_name(path.name.partition(".")[0])]
            if lock.acquire(blocking=False):
                try:
                    path.unlink(missing_ok=True)
                    used -= sizes[path][1]
                finally:
                    lock.release()


_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)  # of an agent's leases, by cached file


@contextmanager
def _in_use(kept: Path, stopped: Callable[[], bool]) -> Iterator[None]:
    """For one lease at a time: two that append to one partial file would spoil it. Raises Interrupted."""
    while not _locks[kept].acquire(timeout=0.2):
        if stopped():
            raise Interrupted(f"the fetching of {kept.name} was interrupted")
    try:
        yield
    finally:
        _locks[kept].release()


def _chunks(path: Path, stopped: Callable[[], bool]) -> Iterator[bytes]:
    """A file's content. It may be large, so that the worker must be able to stop meanwhile: raises Interrupted."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            if stopped():
                raise Interrupted(f"the reading of {path.name} was interrupted")
            yield chunk


def _sha256(path: Path, stopped: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(path, stopped):
        digest.update(chunk)
    return "0x" + digest.hexdigest()


class Download:
    """One file from its url to `target`, going on where a broken connection left off."""

    def __init__(self, ref: FileRef, target: Path, hosts: Collection[str], stopped: Callable[[], bool]) -> None:
        assert ref.url is not None
        self._ref, self._url, self._target = ref, ref.url, target
        self._hosts, self._stopped = hosts, stopped
        # By its url, too: another job's, which may name the same hash, must not begin this file with something else.
        self._partial = target.with_name(f"{target.name}.{hashlib.sha256(self._url.encode()).hexdigest()[:16]}.part")
        self._said = time.monotonic()

    def run(self) -> None:
        pause, longest = PAUSE_SECONDS
        failures = 0
        while True:
            before = self._have()
            try:
                self._fetch()
                return self._finish()
            except (OSError, http.client.HTTPException) as error:
                failures = failures + 1 if self._have() < before + LEAST_BYTES else 1
                if failures >= ATTEMPTS:
                    raise Unreachable(f"{self._url} can't be fetched: {error or type(error).__name__}") from error
                log.warning("input.retry", url=self._url, problem=str(error), retry_in=pause)
            self._wait(pause)
            pause = min(2 * pause, longest)

    def _have(self) -> int:
        return self._partial.stat().st_size if self._partial.exists() else 0

    def _wait(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self._stopped():
                raise Interrupted(f"the fetching of {self._url} was interrupted")
            time.sleep(0.1)

    def _fetch(self) -> None:
        """Appends to the partial file until it is whole."""
        if (have := self._have()) >= self._ref.size:
            return
        with ConnectionGuard(self._url, self._stopped) as guard:
            try:
                with _get(self._url, self._hosts, have, guard) as response:
                    self._take(response, have, guard)
            except (OSError, ValueError, http.client.HTTPException):
                guard.check()  # it may have been the guard that ended it
                raise
            guard.check()
        if self._have() < self._ref.size:
            raise OSError("the connection ended early")

    def _take(self, response: http.client.HTTPResponse, have: int, guard: ConnectionGuard) -> None:
        guard.body_begins()
        if response.status in BUSY:
            raise OSError(f"it answered {response.status} {response.reason}")
        if response.status not in (200, 206):
            raise UserError(f"{self._url} answered {response.status} {response.reason}")
        if response.status == 206:
            span = response.headers.get("content-range", "")
            if not span.startswith(f"bytes {have}-"):
                raise UserError(f"{self._url} was asked for bytes from {have} on, and sent {span!r}")
        with self._partial.open("ab" if response.status == 206 else "wb") as file:
            self._copy(response, file, guard)
            if response.status == 200 and response.length == 0 and file.tell() < self._ref.size:
                raise UserError(f"{self._url} has {file.tell()} bytes, the job says {self._ref.size}")

    def _copy(self, response: http.client.HTTPResponse, file: BinaryIO, guard: ConnectionGuard) -> None:
        while chunk := response.read1(CHUNK):
            guard.received(len(chunk))
            if file.tell() + len(chunk) > self._ref.size:
                raise UserError(f"{self._url} has more than the {self._ref.size} bytes that the job says")
            file.write(chunk)
            if time.monotonic() > self._said + SAY_SECONDS:
                self._said = time.monotonic()
                log.info("input.fetching", url=self._url, bytes=file.tell(), of=self._ref.size)

    def _finish(self) -> None:
        got = _sha256(self._partial, self._stopped) if self._ref.size else self._ref.sha256
        if got != self._ref.sha256:
            self._partial.unlink()
            raise UserError(f"{self._url} has the SHA-256 {got}, the job says {self._ref.sha256}; not kept")
        self._partial.touch()
        self._partial.replace(self._target)
        log.info("input.fetched", url=self._url, bytes=self._ref.size)


def check_host(host: str, allowed: Collection[str]) -> None:
    """Raises UserError unless the machine's owner allows the host."""
    if host not in allowed:
        names = ", ".join(sorted(allowed)) or "none"
        raise UserError(f"the job wants a file from {host!r}; this machine fetches from: {names}")


@contextmanager
def _get(url: str, allowed: Collection[str], offset: int, guard: ConnectionGuard) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET of the bytes from `offset` on, after redirects within the allowed hosts."""
    for _ in range(MAX_REDIRECTS + 1):
        connection = _connect(url, allowed, guard)
        try:
            parts = urlsplit(url)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = {"user-agent": "gpumarket", "accept-encoding": "identity"}
            connection.request("GET", path, headers=headers | ({"range": f"bytes={offset}-"} if offset else {}))
            response = connection.getresponse()
            guard.check()  # a connection that was ended in its head looks like a head that is over
            if response.status not in REDIRECTS:
                yield response
                return
            target = urljoin(url, response.headers.get("location", ""))
        finally:
            connection.close()
        try:
            url = check_url(target)
        except ValueError as error:
            raise UserError(f"a redirect is refused: {error}") from error
    raise UserError(f"{url}: more than {MAX_REDIRECTS} redirects")


def _connect(url: str, allowed: Collection[str], guard: ConnectionGuard) -> http.client.HTTPConnection:
    """A connection to an address of the url's host that was checked."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    check_host(host, allowed)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = http.client.HTTPConnection(host, port, timeout=SOCKET_SECONDS)
    address = guard.wait_for(lambda: checked_address(host, port))
    raw = guard.wait_for(lambda: socket.create_connection((address, port), timeout=SOCKET_SECONDS))
    try:
        guard.hold(raw)
        secure = parts.scheme == "https"
        connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=host) if secure else raw
    except BaseException:
        with suppress(OSError):
            raw.close()
        raise
    return connection


def checked_address(host: str, port: int) -> str:
    """An address of the host that is public; a private one only if the owner allowed just that address by its number.

    Raises OSError if there is no such name now, UserError if one of its addresses is not public.
    """
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    by_number = host == "localhost" or _is_number(host)
    for address in found:
        if not by_number and not is_public(ipaddress.ip_address(address.partition("%")[0])):
            raise UserError(f"{host} leads to {address}, which is no public address; nothing is fetched from there")
    return found[0]


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the address is one host's on the internet, and holds none that is not.

    An IPv6 address may stand for an IPv4 one: mapped, behind a translator (NAT64), or in a tunnel's interface (ISATAP).
    Other tunnels' (6to4, Teredo) and those that are compatible with IPv4 are of no use any more, and refused.
    """
    if isinstance(address, ipaddress.IPv6Address):
        last = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.ipv4_mapped is not None or address in NAT64:
            return is_public(last)
        if address not in GLOBAL_UNICAST or (int(address) >> 32 & 0xFFFF_FFFF in ISATAP and not is_public(last)):
            return False
    return address.is_global and not address.is_multicast and not any(address in other for other in NO_HOSTS)


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
