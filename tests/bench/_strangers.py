"""What strangers send to a market's HTTP: requests that are large, endless, half, or many."""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

from contracts.api.access import SCHEME
from contracts.job.spec import MAX_CONFIG
from contracts.types import ZERO_HASH
from tests.bench._victim import MEGABYTE, Victim
from tests.support.market_parts import RECIPE, make_bid, make_spec, signed_bid

CLIENT = "0x00000000000000000000000000000000000000AA"
FILE = {"sha256": "0x" + "11" * 32, "size": 1}
SPEC = {
    "environment": "torch-2.13",
    "recipe": "recipe.py:Digits",
    "files": {"recipe.py": FILE},
    "seed": 1,
    "steps": 4,
    "checkpoint_every": 1,
}
SIZES = (4 * MEGABYTE - 1000, MEGABYTE - 1000, 120_000)  # of bodies: one too large, and some that a market may take
AT_ONCE = 8  # requests, each on a connection of its own
PATIENCE = 60.0  # seconds, for an answer
HELD_SECONDS = 20.0  # for which connections are held open

Attack = Callable[[Victim], None]


# ------------------------------------------------------------------ bodies


def _quote(**changes: object) -> bytes:
    """Of a quote whose spec has "..." where many things go."""
    return json.dumps({"client": CLIENT, "units": 1, "spec": SPEC | changes}).encode()


def _filled(template: bytes, item: Callable[[int], str], size: int) -> bytes:
    """The template with so many items for its `"..."` that it has `size` bytes, or a little less."""
    each = len(item(1_000_000)) + 1
    items = ",".join(item(number) for number in range(max(1, (size - len(template)) // each)))
    return template.replace(b'"..."', items.encode())


def quote_devices(victim: Victim) -> None:
    template = _quote(resources={"devices": ["..."]})
    _post_all(victim, "/v1/quote", (_filled(template, lambda _: "1", size) for size in SIZES))


def unknown_keys(victim: Victim) -> None:
    for path in ("/v1/quote", "/v1/bids", "/v1/asks"):
        _post_all(victim, path, (_filled(b'{"..."}', lambda n: f'"k{n}":1', size) for size in SIZES))


def bad_files(victim: Victim) -> None:
    template = _quote().replace(json.dumps({"recipe.py": FILE}).encode(), b'{"..."}')
    _post_all(victim, "/v1/quote", (_filled(template, lambda n: f'"f{n}":1', size) for size in SIZES))


def small_lists(victim: Victim) -> None:
    template = _quote(config={"a": ["..."]})
    _post_all(victim, "/v1/quote", (_filled(template, lambda _: "[]", size) for size in SIZES))


def long_names(victim: Victim) -> None:
    """One key, one name and one number, each as long as the body."""
    for size in SIZES:
        long = "x" * (size - 1000)
        _post_all(
            victim,
            "/v1/quote",
            [
                json.dumps({long: 1}).encode(),
                _quote(recipe=long),
                _quote(seed=1).replace(b'"seed": 1', b'"seed": ' + b"1" * (size - 1000)),
            ],
        )


def _post_all(victim: Victim, path: str, bodies: Iterable[bytes]) -> None:
    for body in bodies:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda _, body=body: _post(victim, path, body), range(AT_ONCE)))


def _post(victim: Victim, path: str, body: bytes) -> None:
    """Sends it and waits for the first bytes of an answer. A market may hang up before."""
    head = f"POST {path} HTTP/1.1\r\nhost: market\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    with suppress(OSError), _connected(victim) as connection:
        connection.sendall(head.encode() + b"\r\n" + body)
        connection.recv(1 << 16)


# ------------------------------------------------------------------ connections


def _connected(victim: Victim) -> socket.socket:
    return socket.create_connection((victim.host, victim.port), timeout=PATIENCE)


def long_url(victim: Victim) -> None:
    _send_much(victim, b"GET /v1/jobs?after=", b"x" * 65_536, 100 * MEGABYTE)


def many_headers(victim: Victim) -> None:
    line = b"x-%d: " + b"y" * 100 + b"\r\n"
    _send_much(victim, b"GET /v1/info HTTP/1.1\r\n", (line % 7) * 600, 300 * MEGABYTE)


def pipelined(victim: Victim) -> None:
    _send_much(victim, b"", b"GET /v1/info HTTP/1.1\r\nhost: a\r\n\r\n" * 2000, 50 * MEGABYTE)


def _send_much(victim: Victim, first: bytes, piece: bytes, size: int) -> None:
    with suppress(OSError), _connected(victim) as connection:
        connection.settimeout(5)
        connection.sendall(first)
        for _ in range(size // len(piece)):
            connection.sendall(piece)


def endless_bodies(victim: Victim) -> None:
    """150 requests whose bodies come, and never end."""
    head = b"POST /v1/bids HTTP/1.1\r\nhost: market\r\ncontent-type: application/json\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    _hold(victim, 150, head, piece)


def half_requests(victim: Victim) -> None:
    """1,500 connections on which a request begins, and goes on by a byte now and then."""
    _hold(victim, 1500, b"GET /v1/info HTTP/1.1\r\nx-slow: ", b"y")


def _hold(victim: Victim, number: int, first: bytes, piece: bytes) -> None:
    ends = time.monotonic() + HELD_SECONDS
    with ExitStack() as held:
        open_ones = []
        for _ in range(number):
            with suppress(OSError):
                connection = held.enter_context(_connected(victim))
                connection.settimeout(0.5)
                connection.sendall(first)
                open_ones.append(connection)
        while open_ones and time.monotonic() < ends:
            for connection in list(open_ones):
                try:
                    connection.sendall(piece)
                except OSError:
                    open_ones.remove(connection)
            time.sleep(0.05)


# ------------------------------------------------------------------ tokens


def forged_tokens(victim: Victim) -> None:
    """60 tokens that nobody signed, while the node is silent."""
    victim.gate.silent.set()
    try:
        with ThreadPoolExecutor(60) as pool:
            list(pool.map(lambda number: _ask_with_token(victim, number), range(60)))
    finally:
        victim.gate.silent.clear()


def _ask_with_token(victim: Victim, number: int) -> None:
    token = {"account": f"0x{number + 1:040x}", "job": ZERO_HASH, "scope": "read", "validUntil": int(time.time()) + 600}
    text = json.dumps({"token": token, "signature": "0x" + "01" * 65}).encode()
    header = f"{SCHEME} {base64.urlsafe_b64encode(text).decode()}"
    with suppress(OSError), _connected(victim) as connection:
        connection.sendall(f"GET /v1/info HTTP/1.1\r\nhost: a\r\nauthorization: {header}\r\n\r\n".encode())
        connection.recv(1 << 16)


# ------------------------------------------------------------------ records


def large_jobs(victim: Victim) -> None:
    """25 Bids as large as they may be, and then eight who read the lists."""
    key = victim.rich_key(tokens=100)
    recipe = victim.stage.home / "recipe.py"
    recipe.write_bytes(RECIPE)
    with victim.api(key) as api:
        info, ref = api.info(), api.put_blob(recipe)
        files = {f"{'d' * 200}/{number}": ref for number in range(900)} | {"recipe.py": ref}
        for nonce in range(25):
            spec = make_spec(files=files, config={"text": "x" * (MAX_CONFIG - 100), "nonce": nonce})
            bid = make_bid(key, info.matcher, info.rules[0].rules, spec, nonce=nonce)
            api.post_bid(signed_bid(bid, victim.chain.domain, key, spec))
    paths = [f"/v1/jobs?limit=500&client={key.address}", "/v1/leases?limit=500", "/v1/epochs/1/bids?limit=500"]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda number: read_all(victim, paths[number % len(paths)]), range(3 * AT_ONCE)))


def read_all(victim: Victim, path: str) -> int:
    """Bytes of the answer."""
    size = 0
    with _connected(victim) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        while data := connection.recv(1 << 16):
            size += len(data)
    return size


class Asking:
    """Asks for something again and again beside an attack; `longest` is the longest wait in seconds."""

    def __init__(self, victim: Victim, path: str) -> None:
        self._victim, self._path, self.longest = victim, path, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        while not self._ended.wait(0.1):
            began = time.monotonic()
            with suppress(OSError), _connected(self._victim) as connection:
                connection.sendall(f"GET {self._path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
                while connection.recv(1 << 16):
                    pass
            self.longest = max(self.longest, time.monotonic() - began)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


ATTACKS: tuple[Attack, ...] = (
    quote_devices, unknown_keys, bad_files, small_lists, long_names,
    long_url, many_headers, pipelined, endless_bodies, half_requests, forged_tokens, large_jobs,
)  # fmt: skip
