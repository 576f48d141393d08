"""Writes the golden vectors that the Python and the forge tests both read: `python tests/golden/generate.py`.

Every integer is a decimal string, every byte string 0x-hex. The keys are throwaway: keccak("gpumarket golden NAME").
The vectors are committed; tests compare this code's output with the files, so a change of protocol shows as a diff.
"""

import json
from pathlib import Path
from typing import Any

import rfc8785
from eth_account import Account
from eth_utils.crypto import keccak

from contracts import commitment
from contracts.api.epochs import EpochHeader, LeftOut, LeftOutReason, epoch_root
from contracts.audits.draw import Drawable, lease_secret, number_drawn, threshold
from contracts.audits.draw import commitment as committed
from contracts.audits.levels import CLOSED, SHIPPED
from contracts.audits.verification import ThreadBounds
from contracts.commitment import Tensor
from contracts.job.early_stop import Stop
from contracts.job.spec import FileRef, JobSpec, Resources
from contracts.job.state_kinds import Kinds
from contracts.orders import (
    AccessToken,
    Approval,
    Ask,
    AuditNote,
    AuditorGrant,
    Bid,
    Claim,
    Domain,
    EncryptionKey,
    KeyGrant,
    Receipt,
    Rejection,
    Report,
    Rules,
    SignedType,
)
from contracts.strict_json import canonical_json
from contracts.terms import AccountWord, Nums, Parties, StateWord, Terms
from contracts.types import from_hex, to_hex

HERE = Path(__file__).parent
DOMAIN = Domain(chain_id=31337, verifying_contract="0x5FbDB2315678afecb367f032d93F642f64180aa3")
CLIENT, PROVIDER, APPROVER, MATCHER = (
    Account.from_key(keccak(b"gpumarket golden " + name)) for name in (b"client", b"provider", b"approver", b"matcher")
)

# Of the checkpoints: none; numbers; names that RFC 8785 sorts in another order than UTF-8 does, and large integers.
KINDS: tuple[Kinds, ...] = (
    {},
    {"optimizer.step": "int"},
    {"\ufb03": "none", "\U0001f600": "none", "é": [2**64, -1, "1"], "\n\u0001": {"counter": ["b", "a"]}},
)


def texts(value: Any) -> Any:
    """JSON with every integer as decimal text."""
    if isinstance(value, dict):
        return {key: texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [texts(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int):
        return to_hex(value) if isinstance(value, bytes) else value
    return str(value)


def signed(order: SignedType, key: Any) -> dict[str, Any]:
    compact = order.sign(DOMAIN, key)
    full = key.sign_message(order.signable(DOMAIN)).signature
    return order.message() | {
        "hash": order.digest(DOMAIN),
        "signer": key.address,
        "signature": compact,
        "signature65": to_hex(full),
    }


def job_vectors() -> dict[str, Any]:
    spec = JobSpec(
        environment="torch-2.13",
        recipe="recipe.py:Digits",
        config={"hidden": 64, "lr": 0.001, "name": "zwölf", "layers": [1, 2, 3]},
        files={
            "recipe.py": FileRef(sha256=to_hex(keccak(b"a")), size=1234),
            "data/digits.npz": FileRef(sha256=to_hex(keccak(b"b")), size=98765),
        },
        seed=42,
        steps=600,
        checkpoint_every=100,
        resources=Resources(gpus=1, vram_mb=8000, devices=("NVIDIA GeForce RTX 4090",)),
        interruptible=True,
        deadline="2030-01-31T12:00:00Z",
    )
    # All optional fields, which are left out of the JSON above.
    more = spec.model_copy(
        update={
            "files": spec.files
            | {
                "w.safetensors": FileRef(
                    sha256=to_hex(keccak(b"c")), size=7, url="https://example.org/w.safetensors?v=1"
                )
            },
            "start": "w.safetensors",
            "start_step": 600,
            "stop": Stop(metric="eval_loss", patience=3, min_delta=0.001),
        }
    )
    sealed = spec.model_copy(update={"sealed": True})
    choosy = spec.model_copy(
        update={"resources": Resources(gpus=1, regions=("eu-de", "us"), tier=2, units_per_hour=30_000_000_000)}
    )
    named = spec.model_copy(
        update={
            "resources": Resources(
                providers=(PROVIDER.address,), not_providers=(CLIENT.address,), numerics=(to_hex(keccak(b"class")),)
            )
        }
    )
    return {
        "named": {
            "spec": named.model_dump(mode="json"),
            "canonical": named.canonical().decode(),
            "job": named.job_hash(),
        },
        "spec": spec.model_dump(mode="json"),
        "canonical": spec.canonical().decode(),
        "job": spec.job_hash(),
        "more": {
            "spec": more.model_dump(mode="json"),
            "canonical": more.canonical().decode(),
            "job": more.job_hash(),
        },
        "sealed": {
            "spec": sealed.model_dump(mode="json"),
            "canonical": sealed.canonical().decode(),
            "job": sealed.job_hash(),
        },
        "choosy": {
            "spec": choosy.model_dump(mode="json"),
            "canonical": choosy.canonical().decode(),
            "job": choosy.job_hash(),
        },
    }


def checkpoint_vectors(job: bytes) -> dict[str, Any]:
    numerics = {"torch": "2.13.0", "device": "cpu", "threads": 1, "blas": "mkl"}
    numerics_class = commitment.numerics_class(numerics)
    tip = commitment.start_tip(job)
    tip0, checkpoints = tip, []
    for index in (1, 2, 3):
        tensors = [
            Tensor("model.weight", "F32", (300, 2), bytes((index * i) % 251 for i in range(2400))),
            Tensor("model.bias", "F32", (2,), bytes(range(index, index + 8))),
            Tensor("empty", "F64", (0,), b""),
            Tensor("optimizer.step", "I64", (), (index * 2).to_bytes(8, "little")),
        ]
        steps = [2 * index - 1, 2 * index]
        digests = [
            commitment.step_digest(step, {"loss": 1.5 / step, "accuracy": 0.25}, bytes([step]) * 1024) for step in steps
        ]
        kinds = KINDS[index - 1]
        state, trace = commitment.state_root(tensors, kinds), commitment.trace_root(digests)
        root = commitment.checkpoint_root(job, index, 2 * index, state, trace, numerics_class)
        tip = commitment.next_tip(tip, root)
        checkpoints.append(
            {
                "index": index,
                "step": 2 * index,
                "tensors": [
                    {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "data": bytes(t.data)} for t in tensors
                ],
                "kinds": canonical_json(kinds).decode(),
                "steps": [
                    {
                        "step": s,
                        "metrics": {"loss": repr(1.5 / s), "accuracy": "0.25"},
                        "sampled": bytes([s]) * 1024,
                    }
                    for s in steps
                ],
                "stepDigests": digests,
                "stateRoot": state,
                "traceRoot": trace,
                "root": root,
                "tip": tip,
            }
        )
    return {
        "job": job,
        "numerics": numerics,
        "numericsClass": numerics_class,
        "tip0": tip0,
        "seed": 42,
        "stepSeeds": [commitment.step_seed(42, step) for step in (1, 2, 3)],
        "samplePositions": commitment.sample_positions(42, 1, 1000)[:8],
        "checkpoints": checkpoints,
    }


def order_vectors(job: bytes, tip: str) -> dict[str, Any]:
    rules = Rules(
        arbiter="0x00000000000000000000000000000000000A4b17",
        arbiter_fee=5_000_000,
        arbiter_timeout=86_400,
        checkpoint_timeout=7_200,
        window=3_600,
        verification=to_hex(commitment.canonical_hash({"level": "audited"})),
    )
    bid = Bid(
        client=CLIENT.address,
        matcher=MATCHER.address,
        approver=APPROVER.address,
        job=to_hex(job),
        rules=rules.struct_hash(),
        checkpoints=6,
        units=20_000_000,
        max_price=2_500_000,
        fee=10_000,
        stake=60_000_000,
        valid_until=1_900_000_000,
        nonce=3 << 8 | 111,
    )
    ask = Ask(
        provider=PROVIDER.address,
        matcher=MATCHER.address,
        resources=to_hex(commitment.canonical_hash({"gpus": 1})),
        rules=rules.struct_hash(),
        price_per_hour=900_000,
        units_per_hour=9_000_000_000,
        max_stake=100_000_000,
        max_active=1,
        max_checkpoints=4,
        valid_from=1_700_000_000,
        valid_until=1_900_000_000,
        page=7,
    )
    price = -(-ask.price_per_hour * bid.units // ask.units_per_hour)
    nums = Nums(0, 4, rules.window, rules.checkpoint_timeout, price + 7, bid.fee, ask_price=price)
    parties = Parties(
        bid=bid.digest(DOMAIN),
        job=bid.job,
        prev="0x" + "00" * 32,
        rules=bid.rules,
        client=bid.client,
        approver=bid.approver,
        fee_to=bid.matcher,
        stake=bid.stake,
    )
    terms = Terms(ask.provider, nums, parties)
    state = StateWord(
        status=0x42,
        settled=1,
        accepted=2,
        claimed=3,
        t=1_800_000_000,
        tip=int.from_bytes(from_hex(tip), "big"),
    )
    account = AccountWord(free=123_456_789, active=2, page=3, used=1 << 111 | 5)
    named = parties._asdict()
    named["feeTo"] = named.pop("fee_to")
    content = to_hex(keccak(b"log tail"))
    return {
        "domain": DOMAIN.model_dump(by_alias=True),
        "rules": rules.message() | {"hash": rules.struct_hash()},
        "bid": signed(bid, CLIENT),
        "ask": signed(ask, PROVIDER),
        "claim": signed(Claim(lease=terms.lease, n=3, tip=tip), PROVIDER),
        "approval": signed(Approval(lease=terms.lease, n=3, tip=tip, last=True), APPROVER),
        "rejection": signed(
            Rejection(lease=terms.lease, n=3, tip=tip, reason="die Daten sind nicht die des Auftrags: größer als 1 €"),
            APPROVER,
        ),
        "report": signed(Report(lease=terms.lease, n=3, kind="release", content=content, time=1_800_000_000), PROVIDER),
        "auditnote": signed(
            AuditNote(lease=terms.lease, kind="commitment", content=content, time=1_800_000_000), APPROVER
        ),
        "accesstoken": signed(
            AccessToken(account=PROVIDER.address, job=parties.bid, scope="read", valid_until=1_800_000_600), PROVIDER
        ),
        "auditorgrant": signed(
            AuditorGrant(job=parties.bid, auditor=APPROVER.address, valid_until=1_800_003_600), CLIENT
        ),
        "encryptionkey": signed(
            EncryptionKey(account=PROVIDER.address, key=to_hex(keccak(b"x25519")), time=1_800_000_000), PROVIDER
        ),
        "keygrant": signed(
            KeyGrant(
                job=parties.bid,
                reader=PROVIDER.address,
                reader_key=to_hex(keccak(b"x25519")),
                content=to_hex(keccak(b"80")),
            ),
            APPROVER,
        ),
        "receipt": signed(Receipt(order=parties.bid, epoch=41, block=19_000_000, time=1_800_000_000), MATCHER),
        "lowestPrice": price,
        "lease": {
            "provider": terms.provider,
            **nums._asdict(),
            "nums": to_hex(nums.pack().to_bytes(32, "big")),
            "parties": named,
            "partiesHash": parties.hash(),
            "id": terms.lease,
        },
        "account": account._asdict() | {"word": to_hex(account.pack().to_bytes(32, "big"))},
        "state": state._asdict() | {"tip": tip, "word": to_hex(state.pack().to_bytes(32, "big"))},
    }


def epoch_vectors(orders: dict[str, Any]) -> dict[str, Any]:
    header = EpochHeader(
        number=41,
        market=MATCHER.address,
        chain_id=DOMAIN.chain_id,
        escrow=DOMAIN.verifying_contract,
        block=19_000_000,
        block_hash=to_hex(keccak(b"block")),
        time=1_800_000_000,
        tick=10**12,
        rules=[Rules.model_validate({name: value for name, value in orders["rules"].items() if name != "hash"})],
        failures=[],
        left_out=[LeftOut(order=to_hex(keccak(b"left out")), reason=LeftOutReason.REFUSED, epoch=40)],
    )
    ids = [orders["bid"]["hash"], orders["ask"]["hash"]]
    return {
        "header": json.dumps(header.model_dump(mode="json", by_alias=True)),
        "orders": ids,
        "leaf": header.leaf(),
        "root": epoch_root(header, ids),
    }


def verification_vectors() -> dict[str, Any]:
    """The shipped levels, and one that uses every field."""
    bounded = CLOSED.model_copy(
        update={"classes": tuple(sorted(to_hex(keccak(name)) for name in (b"one", b"two"))), "share_ppm": 25_001}
    ).model_copy(update={"threads": ThreadBounds(least=1, most=16), "unreproducible": "unaudited"})
    levels = {
        name: {"canonical": rfc8785.dumps(one.model_dump(mode="json")).decode(), "hash": one.hash()}
        for name, one in {**SHIPPED, "bounded": bounded}.items()
    }
    lease, tip, block = (to_hex(keccak(name)) for name in (b"lease", b"tip", b"block"))
    key = keccak(b"gpumarket golden approver")
    secret = lease_secret(key, DOMAIN, lease)
    claim = Drawable(258, tip[:42])
    return {
        "levels": levels,
        "draw": {
            "key": key,
            "domain": DOMAIN.model_dump(by_alias=True),
            "lease": lease,
            "secret": secret,
            "commitment": committed(secret),
            "n": claim.n,
            "tip": claim.tip,
            "block": block,
            "number": to_hex(number_drawn(secret, lease, claim, block).to_bytes(32, "big")),
            "thresholds": [
                {"sharePpm": share, "approveEvery": every, "size": size, "below": threshold(share, every, size)}
                for share, every, size in (
                    (100_000, 4, 4),
                    (100_000, 4, 1),
                    (200_000, 6, 5),
                    (1, 100, 99),
                    (10**6, 2, 1),
                )
            ],
        },
    }


def vectors() -> dict[str, str]:
    """File name -> content."""
    job = job_vectors()
    checkpoints = checkpoint_vectors(job["job"])
    orders = order_vectors(job["job"], to_hex(checkpoints["checkpoints"][-1]["tip"]))
    files = {
        "job.json": job,
        "checkpoints.json": checkpoints,
        "orders.json": orders,
        "epoch.json": epoch_vectors(orders),
        "verification.json": verification_vectors(),
    }
    return {name: json.dumps(texts(value), indent=1, ensure_ascii=False) + "\n" for name, value in files.items()}


if __name__ == "__main__":
    for name, text in vectors().items():
        (HERE / name).write_text(text, encoding="utf-8")
