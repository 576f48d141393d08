"""How a node is asked: no more at once than it takes, later when it says so; and what it says is told as what it is."""

import re
import threading
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_netrc_auth, select_proxy
from urllib3.exceptions import ReadTimeoutError
from web3 import HTTPProvider, Web3
from web3.exceptions import Web3RPCError
from web3.types import RPCEndpoint, RPCResponse

from contracts.chain.asking.answers import OddAnswer, checked_answer, checked_error, is_refusal, shown
from contracts.chain.asking.hurry import SECONDS, Gate, current_gate
from contracts.proxies import plain_address, proxy_of
from contracts.strict_json import read_json, write_json
from contracts.text import line_of_page

CONNECTIONS = 64  # kept open at most; more than a market has threads
TIMEOUT = 30.0  # seconds, for one answer
PATIENCE = 30.0  # seconds that a question is put off because the node asks for it
PAUSES = (0.125, 0.25, 0.5, 1.0, 2.0)  # seconds before it is asked again, where it doesn't say for how long
BATCH = 100  # questions in one request, where the node takes so many
GROWS_AFTER = 16  # portions in a row that were taken

Question = tuple[str, list[Any]]  # method and parameters

_LATER = (429, 502, 503, 504)  # HTTP statuses that may be another one soon
_NO_ANSWERS = (401, 403, 413, 429)  # those whose body is no answer to the question, whatever stands in it
# Of the many words in which nodes say, with HTTP status 200, that they were asked too often.
_TOO_OFTEN = re.compile(
    r"rate.?limit|too many requests|requests? per (second|minute|hour|day)|request (count|rate)|"
    r"compute units per|throughput|throttl|exceeded .*capacity",
    re.IGNORECASE,
)
_HINTS = {
    401: "it wants an access key, or does not know this one: look at rpc_url (GPUMARKET_RPC_URL)",
    403: "it does not let this address or this access key in: look at rpc_url (GPUMARKET_RPC_URL)",
    404: "is the path of rpc_url (GPUMARKET_RPC_URL) right?",
    413: "something before the node takes no request of this size",
    429: "it is asked more often than it allows: wait, or use a node that allows more (docs/operations.md)",
}


class NodeTrouble(requests.RequestException):
    """There is no usable answer of a node. `hint` says what to do; both are without the secrets of its address."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class NodeSilent(NodeTrouble):
    """Nobody answers there."""


class NodeRefused(NodeTrouble):
    """It answers, but not this, or not now. Asked for less it may.

    `status` is that of HTTP; None if it took too long. `after`: seconds until it may be asked again, if it says so.
    """

    def __init__(self, message: str, hint: str, status: int | None, after: float | None = None) -> None:
        super().__init__(message, hint)
        self.status, self.after = status, after


class Portion:
    """How much a node takes at once: less from each refusal on, and more again when it has taken that many times."""

    def __init__(self, most: int) -> None:
        self.size = self._most = most
        self._taken = 0
        self._lock = threading.Lock()

    def refused(self, tried: int, error: Exception) -> None:
        # What takes too long costs a minute each time: then it goes down faster.
        less = max(1, tried // (10 if isinstance(error, NodeRefused) and error.status is None else 2))
        with self._lock:
            self.size, self._taken = min(self.size, less), 0

    def taken(self, tried: int) -> None:
        with self._lock:
            self._taken += tried >= self.size
            if self._taken >= GROWS_AFTER:
                self.size, self._taken = min(self._most, 2 * self.size), 0


class NodeProvider(HTTPProvider):
    """The provider of each Web3 of ours. Raises NodeTrouble for what is no answer. Threads share it."""

    global_ccip_read_enabled = False  # else a stranger's contract could name a URL that web3 then fetches

    def __init__(self, url: str) -> None:
        session = node_session(url)
        super().__init__(url, session=session, exception_retry_configuration=None)
        self.batch = Portion(BATCH)
        self._url, self._session = url, session
        self.place = plain_address(url)
        self._proxy = proxy_of(url) if select_proxy(url, session.proxies) else None

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        # Logs are asked for in ranges: a smaller one may be had sooner than this one again.
        data = self.encode_rpc_request(method, params)
        return self._checked(self._answer(data, patient=method != "eth_getLogs"), read_json(data)["id"], method, params)

    def ask(self, questions: Sequence[Question]) -> list[RPCResponse]:
        """The answers to several questions, in order: in batches, one by one where the node takes no batch."""
        answers: list[RPCResponse] = []
        while len(answers) < len(questions):
            part = questions[len(answers) : len(answers) + self.batch.size]
            if len(part) == 1:
                answers.append(self.make_request(RPCEndpoint(part[0][0]), part[0][1]))
                self.batch.taken(1)
                continue
            try:
                answers += self._batch(part)
            except NodeRefused as error:
                self.batch.refused(len(part), error)
            else:
                self.batch.taken(len(part))
        return answers

    def _batch(self, questions: Sequence[Question]) -> list[RPCResponse]:
        body = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
            for number, (method, parameters) in enumerate(questions)
        ]
        answers = self._answer(write_json(body).encode(), patient=False)
        listed = [one for one in answers if isinstance(one, dict)] if isinstance(answers, list) else []
        known = {str(one.get("id")): one for one in listed}
        if not all(str(number) in known for number in range(len(questions))):
            raise self._refusal(200, f"no batch of {len(questions)} questions: {_words(answers)}")
        found = [known[str(number)] for number in range(len(questions))]
        for one in found:
            if _is_too_often(one):
                raise self._refusal(429, _words(one))
        return [self._checked(one, number, *questions[number]) for number, one in enumerate(found)]

    def _checked(self, said: Any, id: Any, method: str, parameters: Any) -> RPCResponse:
        try:
            return cast(RPCResponse, checked_answer(said, id, method, parameters))
        except OddAnswer as error:
            raise self._refusal(200, str(error)) from error

    # ------------------------------------------------------------- one request

    def _answer(self, data: bytes, patient: bool) -> Any:
        """The JSON of an answer. Asks again while the node wants that.

        Who is not patient waits once, and only if it says for how long.
        """
        if (gate := current_gate()) is not None:
            return self._through(gate, data)
        gives_up = time.monotonic() + PATIENCE
        for tried in range(len(PAUSES) + 1):
            try:
                return self._once(data)
            except NodeRefused as error:
                pause = error.after
                if pause is None and patient and error.status in _LATER and tried < len(PAUSES):
                    pause = PAUSES[tried]
                last = tried == len(PAUSES) or (tried and not patient)
                if pause is None or last or time.monotonic() + pause > gives_up:
                    raise
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _through(self, gate: Gate, data: bytes) -> Any:
        if why := gate.enter():
            raise NodeSilent(f"the Ethereum node at {self.place} is not asked: {why}", "try again in a moment")
        answered = False
        try:
            answer = self._once(data, SECONDS)
            answered = True
            return answer
        except NodeRefused as error:
            answered = error.status is not None
            raise
        finally:
            gate.leave(answered)

    def _once(self, data: bytes, timeout: float = TIMEOUT) -> Any:
        headers = {"content-type": "application/json"}
        try:
            response = self._session.post(self._url, data=data, headers=headers, timeout=timeout)
        except (requests.RequestException, ValueError) as error:
            if (why := _why_not_whole(error, timeout)) is None:
                raise self._silence(error) from error
            raise NodeRefused(
                f"the Ethereum node at {self.place} {why}{self._by_way_of()}",
                self._around("look whether it is well, and in sync"),
                None,
            ) from error
        try:
            said: Any = response.json()
        except (ValueError, RecursionError):
            said = None
        status = response.status_code
        if status >= 400 and not _is_answer(status, said):
            raise self._refusal(
                status, f"HTTP status {_name(status)}{_colon(_words(said, response.text))}", _after(response)
            )
        if not isinstance(said, list | dict):
            raise self._refusal(status, f"something that is not JSON-RPC{_colon(_words(None, response.text))}")
        if _is_too_often(said):
            raise self._refusal(429, _words(said), _after(response))
        if status >= 400 and isinstance(said, dict):  # an answer, and an error
            refusal = checked_error(said["error"])
            said["error"] = refusal | {"message": f"(HTTP status {status}) {refusal['message']}"}
        return said

    # ------------------------------------------------------------- sentences

    def _refusal(self, status: int, what: str, after: float | None = None) -> NodeRefused:
        later = "" if after is None else f"; it asks to wait {after:.0f} s"
        hint = _HINTS.get(status, "look whether it is well; docs/operations.md says what a node must allow")
        message = f"the Ethereum node at {self.place} answers {self._without_key(what)}{later}{self._by_way_of()}"
        return NodeRefused(message, self._around(hint), status, after)

    def _silence(self, error: Exception) -> NodeSilent:
        start = f"no Ethereum node answers at {self.place}"
        if self._proxy and _is_refused(error):
            message = f"{start}: {self._proxy.told}, through which it is asked, accepts no connections"
            return NodeSilent(message, self._around("look whether the proxy runs"))
        return NodeSilent(
            f"{start}: {_why(error)}{self._by_way_of()}",
            self._around("look whether it runs, start one with `gpumarket devnet`, or set GPUMARKET_RPC_URL"),
        )

    def _by_way_of(self) -> str:
        return f"; it is asked through {self._proxy.told}" if self._proxy else ""

    def _around(self, hint: str) -> str:
        return f"{hint}; {self._proxy.way_around(self._url)}" if self._proxy else hint

    def _without_key(self, text: str) -> str:
        """Many nodes take an access key in the path, and some repeat it."""
        for part in re.split(r"[/?&=@:]", self._url.partition("://")[2].partition("/")[2]):
            if len(part) >= 8:
                text = text.replace(part, "...")
        return text


def ask(w3: Web3, questions: Sequence[Question]) -> list[Any]:
    """The raw results in order; a Web3RPCError in the place of each that the node refused. Raises NodeTrouble."""
    return [_result(answer) for answer in cast(NodeProvider, w3.provider).ask(questions)]


def sure(results: Sequence[Any]) -> list[Any]:
    """The same results; raises the first refusal among them."""
    for result in results:
        if isinstance(result, Web3RPCError):
            raise result
    return list(results)


def node_session(url: str) -> requests.Session:
    """Proxies, certificates and a password for the node as the environment names them now.

    They are looked up once: requests would read all variables again for each question, and fail in a thread whose
    neighbour removes one at that moment.
    """
    session = requests.Session()
    found = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify = found["proxies"], found["verify"]
    session.auth = get_netrc_auth(url)
    session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=CONNECTIONS))
    return session


def _result(answer: RPCResponse) -> Any:
    return Web3RPCError(answer["error"]["message"], answer) if "error" in answer else answer["result"]


def _is_answer(status: int, said: Any) -> bool:
    """Whether a node that gives an HTTP status to each error has answered the question all the same."""
    if not isinstance(said, dict) or not is_refusal(said) or status in _NO_ANSWERS:
        return False
    if "jsonrpc" not in said and not (isinstance(said["error"], dict) and isinstance(said["error"].get("code"), int)):
        return False  # what stands before nodes says its errors in JSON, too
    return status < 500 or _is_revert(said["error"])


def _is_revert(error: Any) -> bool:
    return isinstance(error, dict) and (error.get("code") == 3 or "revert" in str(error.get("message")))


def _is_too_often(said: Any) -> bool:
    error = said.get("error") if isinstance(said, dict) else None
    return bool(error) and not _is_revert(error) and _TOO_OFTEN.search(_words(said)) is not None


def _words(said: Any, text: str = "") -> str:
    """What a body says, in one printable line."""
    error = said.get("error") or said.get("message") if isinstance(said, dict) else None
    if isinstance(error, dict):
        error = error.get("message") or error
    return (shown(error) if error else "") or line_of_page(text) or ("" if said is None else shown(said))


def _colon(words: str) -> str:
    return f": {words}" if words else ""


def _name(status: int) -> str:
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return str(status)


def _after(response: requests.Response) -> float | None:
    """Seconds of Retry-After, which is a number or a date."""
    given = response.headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return float(given)
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None


def _why_not_whole(error: Exception, timeout: float) -> str | None:
    """What became of an answer, where there is somebody who answers."""
    # requests calls it a lost connection if the rest of an answer does not come in time.
    late = isinstance(error, requests.ConnectionError) and error.args and isinstance(error.args[0], ReadTimeoutError)
    if isinstance(error, requests.ReadTimeout) or late:
        return f"took longer than {timeout:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "broke off in the middle of an answer"
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return "sends what can't be decompressed"
    return None


def _is_refused(error: Exception) -> bool:
    return isinstance(error, requests.ConnectionError) and "Connection refused" in _root(error)


def _why(error: Exception) -> str:
    match error:
        case requests.exceptions.InvalidProxyURL():
            return "the proxy's address is not one"
        case requests.exceptions.InvalidURL() | requests.exceptions.MissingSchema():
            return "that is not a URL, such as http://127.0.0.1:8545"
        case requests.exceptions.InvalidSchema():
            return "its address must begin with http:// or https://" if "SOCKS" not in str(error) else str(error)
        case requests.exceptions.SSLError():
            return f"its TLS is not right ({_root(error)})"
        case requests.Timeout():
            return f"no connection within {TIMEOUT:g} s"
        case requests.ConnectionError():
            return "nothing accepts connections there" if _is_refused(error) else _root(error)
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _root(error: Exception) -> str:
    """What is behind an error of a connection, without the URL, in which a key may be."""
    reason = getattr(error.args[0], "reason", error.args[0]) if error.args else type(error).__name__
    return str(reason).rpartition("): ")[2][:150] or type(error).__name__
