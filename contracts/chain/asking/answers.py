"""The form of a node's answers, looked at before anybody works with them. Pure.

web3 fails with errors of any kind where a field is not what it expects; and no logs are something else than no list of
logs. What passes here has those fields of a block, a log and so on that are used, and no others.
"""

import re
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Any

from contracts.strict_json import write_json
from contracts.text import LINE, clipped_line

_HEX = re.compile(r"0x[0-9a-fA-F]+")
_BYTES = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_REVERT = re.compile(r"(?:Reverted )?(0x[0-9a-fA-F]{8,})")  # at least the selector of an error
_SHOWN_DEPTH, _SHOWN_ITEMS = 5, 10  # of what is told in a line
_UNNAMED = -32000  # the code for an error of the server that has none of its own

Form = Callable[[Any], Any]  # the value as it is used; raises ValueError for one that is not of this form


class OddAnswer(ValueError):
    """What was answered is no answer to the question. The message goes on after "the node answers"."""


def checked_answer(said: Any, id: Any, method: str, parameters: Any) -> dict[str, Any]:
    """One answer: with a result in its method's form, or with an error that has code and message. Raises OddAnswer.

    `parameters`, and `id`, are those of the question.
    """
    if not isinstance(said, dict):
        raise OddAnswer(f"not one question but several: {shown(said)}")
    if is_refusal(said):
        return {"jsonrpc": "2.0", "id": id, "error": checked_error(said["error"])}
    if "result" not in said:
        raise OddAnswer(f"something that is not JSON-RPC: {shown(said)}")
    if said.get("id") is not None and str(said["id"]) != str(id):
        raise OddAnswer(f"another question than {method}: it has the id {shown(said['id'])}, not {id}")
    form = _MAY_BE_NOTHING if _names_a_thing(method, parameters) else _FORMS
    try:
        result = form[method](said["result"]) if method in form else said["result"]
    except ValueError as error:
        raise OddAnswer(f"{method} with what is none of its results ({error}): {shown(said['result'])}") from error
    return {"jsonrpc": "2.0", "id": id, "result": result}


def is_refusal(said: Mapping[str, Any]) -> bool:
    return said.get("error") not in (None, False, "")


def checked_error(error: Any) -> dict[str, Any]:
    """An error of any form as JSON-RPC wants it. `data` is left only where it is a contract's refusal."""
    given = error if isinstance(error, dict) else {"message": error}
    code, message = given.get("code"), given.get("message")
    words = clipped_line(message) if isinstance(message, str) else ""
    if not words:
        words = f"an error without words: {shown(error)}" if not isinstance(error, str) else "an error without words"
    found = {"code": code if isinstance(code, int) and not isinstance(code, bool) else _UNNAMED, "message": words}
    if (data := _revert_data(given.get("data"))) is not None:
        # Wrapped as some nodes do: plain, web3 decodes it by itself, and fails at what a stranger's contract made up.
        found["data"] = {"data": data}
    return found


def shown(value: Any) -> str:
    """A value of JSON in one printable line. Of what is large or nested deep the beginning."""
    try:
        return clipped_line(value if isinstance(value, str) else write_json(_beginning(value, _SHOWN_DEPTH)))
    except ValueError:  # Python reads NaN, too
        return clipped_line(str(_beginning(value, _SHOWN_DEPTH)))


def _beginning(value: Any, depth: int) -> Any:
    if isinstance(value, dict | list) and depth == 0:
        return "..."
    if isinstance(value, dict):
        return {str(name)[:LINE]: _beginning(one, depth - 1) for name, one in islice(value.items(), _SHOWN_ITEMS)}
    if isinstance(value, list):
        return [_beginning(one, depth - 1) for one in value[:_SHOWN_ITEMS]]
    return value[:LINE] if isinstance(value, str) else value


def _revert_data(data: Any) -> str | None:
    """The bytes of a contract's error, wherever a node puts them."""
    if isinstance(data, dict):
        inner = data.get("data")
        return _revert_data(inner) if isinstance(inner, str) else None
    match = _REVERT.fullmatch(data) if isinstance(data, str) else None
    return match[1] if match and len(match[1]) % 2 == 0 else None


def _names_a_thing(method: str, parameters: Any) -> bool:
    """Whether it asks for something that need not be there. A newest block there is always."""
    first = parameters[0] if isinstance(parameters, list | tuple) and parameters else None
    return method in _MAY_BE_NOTHING and first not in ("latest", "earliest")


# ------------------------------------------------------------- forms


def _quantity(value: Any) -> str:
    """At most 256 bits. Some nodes write numbers as numbers."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 256:
        return hex(value)
    if isinstance(value, str) and _HEX.fullmatch(value) and int(value, 16) < 1 << 256:
        return value
    raise ValueError("a number in hex is due")


def _count(value: Any) -> str:
    """Of blocks, seconds and the like: databases have no more bits for those."""
    text = _quantity(value)
    if int(text, 16) >= 1 << 63:
        raise ValueError("such a number has less than 64 bits")
    return text


def _bytes(value: Any, length: int | None = None) -> str:
    if isinstance(value, str) and _BYTES.fullmatch(value) and length in (None, len(value) // 2 - 1):
        return value
    raise ValueError("bytes in hex are due" if length is None else f"{length} bytes in hex are due")


def _hash(value: Any) -> str:
    return _bytes(value, 32)


def _address(value: Any) -> str:
    return _bytes(value, 20)


def _topics(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError("a list of topics is due")
    return [_hash(one) for one in value]


def _or_nothing(form: Form) -> Form:
    return lambda value: None if value is None else form(value)


def _object(form: Mapping[str, Form], optional: Collection[str] = ()) -> Form:
    def checked(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("an object is due")
        found = {}
        for name, one in form.items():
            if name not in value:
                if name not in optional:
                    raise ValueError(f"it has no {name}")
                continue
            try:
                found[name] = one(value[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return found

    return checked


def _list(form: Form) -> Form:
    def checked(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError("a list is due")
        return [form(one) for one in value]

    return checked


_LOG = _object(
    {
        "address": _address,
        "topics": _topics,
        "data": _bytes,
        "blockNumber": _count,
        "blockHash": _hash,
        "transactionHash": _hash,
        "transactionIndex": _count,
        "logIndex": _count,
    },
    optional=("transactionIndex",),
)
_BLOCK = _object(
    {"number": _count, "hash": _hash, "parentHash": _hash, "timestamp": _count, "baseFeePerGas": _quantity},
    optional=("baseFeePerGas",),
)
_RECEIPT = _object(
    {
        "transactionHash": _hash,
        "blockHash": _hash,
        "blockNumber": _count,
        "status": _count,
        "from": _address,
        "to": _or_nothing(_address),
        "contractAddress": _or_nothing(_address),
        "gasUsed": _quantity,
        "effectiveGasPrice": _quantity,
        "logs": _list(_LOG),
    },
    optional=("to", "contractAddress"),
)
_FORMS: dict[str, Form] = {
    "eth_getLogs": _list(_LOG),
    "eth_getBlockByNumber": _BLOCK,
    "eth_call": _bytes,
    "eth_getCode": _bytes,
    "eth_sendRawTransaction": _hash,
    "eth_blockNumber": _count,
    "eth_chainId": _count,
    "eth_getTransactionCount": _count,
    "eth_estimateGas": _count,
    "eth_gasPrice": _quantity,
    "eth_getBalance": _quantity,
    "eth_maxPriorityFeePerGas": _quantity,
}
_MAY_BE_NOTHING: dict[str, Form] = {
    "eth_getBlockByNumber": _or_nothing(_BLOCK),
    "eth_getBlockByHash": _or_nothing(_BLOCK),
    "eth_getTransactionReceipt": _or_nothing(_RECEIPT),
    "eth_getTransactionByHash": _or_nothing(
        _object({"hash": _hash, "from": _address, "nonce": _count}, optional=("nonce",))
    ),
}
