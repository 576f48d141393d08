"""Access tokens: how a request says, and proves, whose it is. docs/access.md."""

import base64
import binascii
import time

from eth_account.signers.local import LocalAccount
from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.clocks import TOKEN_LIFE
from contracts.orders import AccessToken, Domain
from contracts.types import ZERO_HASH, Signature

SCHEME = "Gpumarket"  # Authorization: Gpumarket <token>
MAX_SECONDS = 3600  # a token may live at most
_SPARE_SECONDS = 60  # left of a token's life when a new one is made


class SignedToken(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    token: AccessToken
    signature: Signature

    def encode(self) -> str:
        """As base64url without padding."""
        return base64.urlsafe_b64encode(self.model_dump_json(by_alias=True).encode()).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> "SignedToken":
        """With or without padding. Raises ValueError."""
        text = text.rstrip("=")
        try:
            return cls.model_validate_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValidationError, binascii.Error, UnicodeError) as error:
            raise ValueError(str(error)) from error


class Signer:
    """Makes tokens with a key, and keeps them while they are good."""

    def __init__(self, account: LocalAccount, domain: Domain) -> None:
        self._account, self._domain = account, domain
        self._made: dict[tuple[str, str], tuple[int, str]] = {}  # (scope, job) -> (valid until, header)

    @property
    def address(self) -> str:
        return str(self._account.address)

    def reading(self, job: str) -> dict[str, str]:
        """Headers of a request that reads blobs or logs of a job (the Bid's id)."""
        return self._headers("read", job)

    def writing(self) -> dict[str, str]:
        """Headers of a request that uploads."""
        return self._headers("write", ZERO_HASH)

    def _headers(self, scope: str, job: str) -> dict[str, str]:
        now = int(time.time())
        valid_until, header = self._made.get((scope, job), (0, ""))
        # The upper bound is for a clock that was set back.
        if not now + _SPARE_SECONDS < valid_until <= now + TOKEN_LIFE:
            token = AccessToken(account=self.address, job=job, scope=scope, valid_until=now + TOKEN_LIFE)
            signed = SignedToken(token=token, signature=token.sign(self._domain, self._account))
            header = f"{SCHEME} {signed.encode()}"
            self._made = {key: one for key, one in self._made.items() if one[0] > now}
            self._made[scope, job] = (token.valid_until, header)
        return {"authorization": header}
