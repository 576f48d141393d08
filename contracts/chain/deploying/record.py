"""What a deployment is to be, and how far it has come: a file that is written before anything is sent."""

from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.chain.client import Bounds
from contracts.errors import UserError, first_sentence
from contracts.types import Address

Role = Literal["token", "escrow", "epoch_log", "arbiter"]
ROLES: tuple[Role, ...] = get_args(Role)  # in the order in which they are sent
ARTIFACTS: dict[Role, str] = {
    "token": "DevToken",
    "escrow": "Escrow",
    "epoch_log": "EpochLog",
    "arbiter": "OperatorArbiter",
}


class Wish(BaseModel):
    """What is deployed, by which key. The same wish is the same deployment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chain_id: int
    deployer: Address
    token: Address | None  # None: a play token of its own
    arbiter: Address | None  # None: an OperatorArbiter
    operator: Address  # of that
    bounds: Bounds

    def roles(self) -> list[Role]:
        """What is made; what is there already is not."""
        given = {"token": self.token, "arbiter": self.arbiter}
        return [role for role in ROLES if given.get(role) is None]


class Created(BaseModel):
    """One contract: the transaction that makes it is the deployer's with this nonce, whatever it pays."""

    model_config = ConfigDict(extra="forbid")

    nonce: int
    address: Address
    transactions: list[str] = Field(default_factory=list)  # sent ones, by their hashes; each pays more than the last
    tip: int = 0  # wei per gas that the last of them offered
    most: int = 0
    block: int | None = None  # that has it


class DeploymentRecord(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wish: Wish
    from_block: int  # nothing of it is older
    contracts: dict[Role, Created] = Field(default_factory=dict)


def read_record(path: Path) -> DeploymentRecord | None:
    """None if there is none. Raises UserError."""
    try:
        return DeploymentRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise UserError(
            f"{path} can't be read: {first_sentence(error)}",
            "it says what was deployed: mend it, or move it away and deploy anew with another --name",
        ) from error


def write_record(path: Path, record: DeploymentRecord) -> None:
    """Atomically. Raises UserError."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise UserError(f"can't write {path}: {error}", "nothing more was sent; see that it can be written") from error
