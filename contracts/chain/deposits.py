"""From a key's tokens to its free balance in the escrow: which transactions that takes."""

from typing import NamedTuple

from web3.contract.contract import ContractFunction
from web3.exceptions import Web3Exception

from contracts.chain.asking.node import NodeTrouble
from contracts.chain.sending.sender import Sender

PERMIT_SECONDS = 3600


class DepositStep(NamedTuple):
    """One transaction; the last of several is the deposit itself, and each needs that those before it are mined."""

    what: str
    call: ContractFunction


def deposit_steps(sender: Sender, amount: int) -> list[DepositStep]:
    """One where the allowance is there, or the token knows permits; else an approval goes before it.

    Tokens such as USDT let no allowance be changed but from or to 0: one that is left over is taken back first.
    """
    chain = sender.chain
    into = f"deposit {chain.format_amount(amount)} for {sender.address}"
    plain = DepositStep(into, chain.deposit(sender.address, amount))
    allowance = chain.allowance(sender.address)
    if allowance >= amount:
        return [plain]
    try:
        permitted = chain.deposit_with_permit(sender.account, amount, chain.now() + PERMIT_SECONDS)
        return [DepositStep(f"{into}, with a permit", permitted)]
    except NodeTrouble:
        raise
    except Web3Exception:  # the token knows none
        left = f"take back what is left of an allowance, {chain.format_amount(allowance)}"
        steps = [DepositStep(left, chain.approve(0))] if allowance else []
        allow = DepositStep(f"let the escrow take {chain.format_amount(amount)}", chain.approve(amount))
        return [*steps, allow, plain]
