"""Several questions to the node in one request."""

from collections.abc import Sequence
from typing import Any, cast

from web3 import Web3
from web3.exceptions import Web3RPCError
from web3.types import RPCEndpoint

BATCH = 100  # questions in one request; nodes limit them

Question = tuple[str, list[Any]]  # method and parameters


def ask(w3: Web3, questions: Sequence[Question]) -> list[Any]:
    """The raw results in order; a Web3RPCError in the place of each that the node refused. Raises as requests does."""
    results: list[Any] = []
    for at in range(0, len(questions), BATCH):
        part = [(RPCEndpoint(method), parameters) for method, parameters in questions[at : at + BATCH]]
        provider = cast(Any, w3.provider)
        answers = provider.make_batch_request(part) if len(part) > 1 else [provider.make_request(*part[0])]
        if not isinstance(answers, list) or len(answers) != len(part):
            raise Web3RPCError(f"the node does not answer {len(part)} questions at once: {answers!r:.200}")
        results += [_result(answer) for answer in answers]
    return results


def sure(results: Sequence[Any]) -> list[Any]:
    """The same results; raises the first refusal among them."""
    for result in results:
        if isinstance(result, Web3RPCError):
            raise result
    return list(results)


def _result(answer: Any) -> Any:
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    return Web3RPCError(str(error.get("message", error)) if isinstance(error, dict) else str(error), answer)
