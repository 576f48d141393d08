"""Whose a request is, by its access token. What was checked is kept in memory, for one process."""

import hashlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from contracts.api.access import MAX_SECONDS, SCHEME, SignedToken
from contracts.api.problems import Code, Problem
from contracts.clocks import TOKENS_AHEAD
from contracts.orders import AccessToken
from contracts.signature_form import signature_fault
from contracts.types import from_hex
from market.api.rate_limits import RateLimits
from market.runtime.context import Context
from market.services.access import may_write

KEPT_TOKENS = 10_000  # that were checked; the oldest are forgotten, and checked again

_HOW = f"Send `Authorization: {SCHEME} <token>`; docs/access.md says how to sign one."


@dataclass(frozen=True)
class Caller:
    """Who signed a request's token."""

    token: AccessToken
    has_stakes: bool  # money in the escrow, or a live lease: what makes an account more than a random number

    @property
    def account(self) -> str:
        return self.token.account


class Callers:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: OrderedDict[bytes, Caller] = OrderedDict()  # by the header's hash: a header may be long
        self._lock = threading.Lock()
        self._limits = RateLimits(context)

    def knows(self, header: str | None) -> bool:
        """Whether `admit` has no questions to the chain: it takes no time then."""
        with self._lock:
            return header is None or _named(header) in self._known

    def admit(self, header: str | None, address: str) -> Caller | None:
        """Count a request, and find out who signed its token. None without one.

        Raises Problem(too_many_requests), or one of access_token_*. Accounts with stakes have a limit of their own;
        for all others the address counts, since keys cost nothing.
        """
        known_as = b"" if header is None else _named(header)
        with self._lock:
            caller = self._known.get(known_as)
        if caller is not None and caller.has_stakes:
            self._limits.count_account(caller.account)
        else:
            self._limits.count_address(address)
        if header is None:
            return None
        if caller is None:
            caller = self._check(header)
            with self._lock:
                self._known[known_as] = caller
                while len(self._known) > KEPT_TOKENS:
                    self._known.popitem(last=False)
        _check_time(caller.token)
        return caller

    def _check(self, header: str) -> Caller:
        scheme, _, text = header.partition(" ")
        if scheme.lower() != SCHEME.lower():
            raise _invalid(f"the Authorization is of the kind {scheme[:20]!r}, not {SCHEME}")
        try:
            signed = SignedToken.decode(text.strip())
        except ValueError as error:
            raise _invalid("the access token is not base64url of a token and its signature") from error
        _check_time(signed.token)
        if self._context.signatures.taken_signature(signed.token, signed.token.account, signed.signature) is None:
            domain = self._context.chain.domain
            fault = signature_fault(from_hex(signed.token.digest(domain)), from_hex(signed.signature))
            raise Problem(
                401,
                Code.ACCESS_TOKEN_INVALID,
                f"the access token is not signed by {signed.token.account}: {fault}",
                f"Sign it with that key for chain {domain.chain_id} and escrow {domain.verifying_contract}.",
            )
        return Caller(signed.token, may_write(self._context, signed.token.account))


def _named(header: str) -> bytes:
    return hashlib.sha256(header.encode()).digest()


def token_missing(scope: str) -> Problem:
    return Problem(401, Code.ACCESS_TOKEN_MISSING, f"this needs an access token with the scope `{scope}`", _HOW)


def wrong_scope(token: AccessToken, scope: str) -> Problem:
    return _invalid(f"the access token has the scope `{token.scope}`; this needs `{scope}`")


def wrong_job(token: AccessToken, job: str) -> Problem:
    return _invalid(f"the access token is for job {token.job}, not for {job}")


def _check_time(token: AccessToken) -> None:
    # The wall clock: a token has nothing to do with the chain's time.
    now = int(time.time())
    if token.valid_until < now:
        raise Problem(
            401,
            Code.ACCESS_TOKEN_EXPIRED,
            f"the access token was valid until {token.valid_until}, and it is {now} now (UTC seconds)",
            "Sign a new one, and check this machine's clock.",
            now=now,
        )
    if token.valid_until > now + MAX_SECONDS + TOKENS_AHEAD:
        raise Problem(
            401,
            Code.ACCESS_TOKEN_INVALID,
            f"the access token is valid until {token.valid_until}, more than {MAX_SECONDS} s from now, {now}",
            f"Sign one for {MAX_SECONDS} s at most, and check this machine's clock.",
            now=now,
        )


def _invalid(detail: str) -> Problem:
    return Problem(401, Code.ACCESS_TOKEN_INVALID, detail, _HOW)
