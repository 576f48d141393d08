"""Something before a devnet's node that limits what may be asked, as public nodes do, each in its own words."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

import pytest

from contracts.chain.client import Chain, connect
from contracts.chain.devnet.devnet import Devnet


@dataclass(frozen=True)
class NodeAnswer:
    status: int
    body: Any  # JSON, or a text
    headers: dict[str, str] = field(default_factory=dict)


Rule = Callable[[Any], NodeAnswer | None]  # of a request's JSON; None: the node may answer


class LimitedNode:
    """`rule` may be changed while it runs. `asked` has each request's JSON."""

    def __init__(self, node: str) -> None:
        self.node, self.asked = node, list[Any]()
        self.rule: Rule = lambda asked: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                asked = json.loads(raw)
                outer.asked.append(asked)
                answer = outer.rule(asked) or NodeAnswer(200, outer.forward(raw))
                body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
                self.send_response(answer.status)
                for name, value in {"content-length": str(len(body.encode())), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def forward(self, raw: bytes) -> str:
        with urlopen(Request(self.node, raw, {"content-type": "application/json"})) as answer:
            text: str = answer.read().decode()
        return text

    def questions(self, method: str) -> list[Any]:
        """Those asked alone."""
        return [asked for asked in self.asked if isinstance(asked, dict) and asked["method"] == method]

    def ranges(self) -> list[int]:
        """How many blocks each question for logs was about."""
        wanted = (asked["params"][0] for asked in self.questions("eth_getLogs"))
        return [_blocks(one) for one in wanted if "fromBlock" in one]

    # ------------------------------------------------------------- rules

    def allow_blocks(self, most: int, status: int, error: Any, headers: dict[str, str] | None = None) -> None:
        """Refuses logs of more blocks than `most` with this error: JSON-RPC's, or a text as something before it."""

        def rule(asked: Any) -> NodeAnswer | None:
            if not isinstance(asked, dict) or asked["method"] != "eth_getLogs" or "fromBlock" not in asked["params"][0]:
                return None
            if _blocks(asked["params"][0]) <= most:
                return None
            body = error if isinstance(error, str) else {"jsonrpc": "2.0", "id": asked["id"], "error": error}
            return NodeAnswer(status, body, headers or {})

        self.rule = rule

    def allow_batch(self, most: int, answer: NodeAnswer) -> None:
        self.rule = lambda asked: answer if isinstance(asked, list) and len(asked) > most else None

    def spoil(self, method: str, said: dict[str, Any], times: int = 1 << 40) -> None:
        """The next so many answers to this method, in batches too, say `said` in place of a result."""
        left = iter(range(times))

        def spoiled(asked: Any, answer: Any) -> Any:
            if asked["method"] != method or next(left, None) is None:
                return answer
            return {"jsonrpc": "2.0", "id": asked["id"], **said}

        def rule(asked: Any) -> NodeAnswer | None:
            answer = json.loads(self.forward(json.dumps(asked).encode()))
            if not isinstance(asked, list):
                return NodeAnswer(200, spoiled(asked, answer))
            by_id = {one["id"]: one for one in answer}
            return NodeAnswer(200, [spoiled(one, by_id[one["id"]]) for one in asked])

        self.rule = rule

    def refuse_times(self, times: int, answer: NodeAnswer) -> None:
        """The next so many requests."""
        left = iter(range(times))
        self.rule = lambda asked: answer if next(left, None) is not None else None


def _blocks(which: Any) -> int:
    # To the newest block, as who names no last one wants it: all of them, however few there are on a devnet.
    last = which.get("toBlock", "latest")
    return 1 << 40 if last == "latest" else int(last, 16) - int(which["fromBlock"], 16) + 1


@pytest.fixture
def limited_node(chain: Chain, devnet: Devnet) -> Iterator[LimitedNode]:
    node = LimitedNode(devnet.settings.rpc_url)
    yield node
    node.close()


def connect_through(node: LimitedNode, devnet: Devnet) -> Chain:
    return connect(devnet.settings.model_copy(update={"rpc_url": node.url}))
