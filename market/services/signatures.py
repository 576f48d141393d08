"""Signatures of what is posted: checked, and kept in the form that the escrow takes."""

from typing import Any, TypeVar

from pydantic import BaseModel

from contracts.api.problems import Code, Problem
from contracts.orders import SignedType
from contracts.signature_form import escrow_form, signature_fault
from contracts.types import from_hex, to_hex
from market.runtime.context import Context

B = TypeVar("B", bound=BaseModel)


def check_signed(
    context: Context,
    body: B,
    message: SignedType,
    signer: str,
    otherwise: str,
    *,
    code: Code = Code.SIGNATURE_INVALID,
    by_key: bool = False,
) -> B:
    """The body with its `signature` of `message` as the escrow takes it. Raises Problem(`code`).

    `otherwise`: the sentence for one that is not the signer's. `by_key`: where the escrow takes no wallet's word.
    """
    given: Any = body
    if by_key:
        plain = escrow_form(from_hex(message.digest(context.chain.domain)), from_hex(given.signature), signer)
        taken = None if plain is None else to_hex(plain)
    else:
        taken = context.signatures.taken_signature(message, signer, given.signature)
    if taken is None:
        raise not_signed(context, message, given.signature, otherwise, code)
    return body if taken == given.signature else body.model_copy(update={"signature": taken})


def not_signed(
    context: Context, message: SignedType, signature: str, sentence: str, code: Code = Code.SIGNATURE_INVALID
) -> Problem:
    domain = context.chain.domain
    fault = signature_fault(from_hex(message.digest(domain)), from_hex(signature))
    return Problem(
        422,
        code,
        f"{sentence}: {fault}",
        f"Sign it with the right key, for chain {domain.chain_id} and escrow {domain.verifying_contract}.",
    )
