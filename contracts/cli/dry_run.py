"""What a dry run says of the transactions that it does not send."""

from collections.abc import Iterable, Sequence
from typing import Any

from web3.contract.contract import ContractFunction

from contracts.chain.sending.fees import format_ether
from contracts.chain.sending.sender import Sender
from contracts.cli.output import say


def not_sent(sender: Sender, steps: Sequence[tuple[str, ContractFunction]]) -> list[dict[str, Any]]:
    """Each step's `what`, and the `max_cost_wei` of the first. Raises as `Sender.send` does for that one.

    What a step costs can't be told before those before it are mined: None.
    """
    first = sender.cost(steps[0][1])
    costs = [str(first), *(None for _ in steps[1:])]
    return [{"what": what, "max_cost_wei": cost} for (what, _), cost in zip(steps, costs, strict=True)]


def tell_not_sent(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        cost = row["max_cost_wei"]
        gas = f"at most {format_ether(int(cost))} ETH" if cost else "known when the one before it is mined"
        say(f"would {row['what']}; gas: {gas}")
