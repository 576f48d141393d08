"""The golden vectors against code that shares nothing with ours but hash functions, and ours against the vectors."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak
from safetensors import deserialize
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from contracts import commitment
from contracts.commitment import Tensor
from contracts.job.spec import JobSpec
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
from contracts.terms import AccountWord, Nums, Parties, StateWord, Terms
from tests.golden.generate import vectors
from tests.support import ROOT

GOLDEN = ROOT / "tests" / "golden"


def load(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


@pytest.mark.parametrize("name", ["job.json", "checkpoints.json", "orders.json", "epoch.json"])
def test_the_committed_vectors_are_what_the_code_gives(name: str) -> None:
    assert vectors()[name] == (GOLDEN / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------ EIP-712, written out by hand

ENCODINGS = {
    "Rules": "Rules(address arbiter,uint96 arbiterFee,uint32 arbiterTimeout,uint32 checkpointTimeout,uint32 window,"
    "bytes32 verification)",
    "Bid": "Bid(address client,address matcher,address approver,bytes32 job,bytes32 rules,bytes20 startTip,"
    "uint16 checkpoints,uint64 units,uint96 maxPrice,uint64 fee,uint96 stake,uint40 validUntil,uint40 nonce)",
    "Ask": "Ask(address provider,address matcher,bytes32 resources,bytes32 rules,uint96 pricePerHour,"
    "uint64 unitsPerHour,uint96 maxStake,uint16 maxActive,uint16 maxCheckpoints,uint40 validFrom,uint40 validUntil,"
    "uint32 page)",
    "Claim": "Claim(bytes32 lease,uint16 n,bytes20 tip)",
    "Approval": "Approval(bytes32 lease,uint16 n,bytes20 tip,bool last)",
    "Rejection": "Rejection(bytes32 lease,uint16 n,bytes20 tip,string reason)",
    "Report": "Report(bytes32 lease,uint16 n,string kind,bytes32 content,uint40 time)",
    "AuditNote": "AuditNote(bytes32 lease,string kind,bytes32 content,uint40 time)",
    "AccessToken": "AccessToken(address account,bytes32 job,string scope,uint40 validUntil)",
    "AuditorGrant": "AuditorGrant(bytes32 job,address auditor,uint40 validUntil)",
    "EncryptionKey": "EncryptionKey(address account,bytes32 key,uint40 time)",
    "KeyGrant": "KeyGrant(bytes32 job,address reader,bytes32 readerKey,bytes32 content)",
    "Receipt": "Receipt(bytes32 order,uint64 epoch,uint64 block,uint40 time)",
}


def by_hand(type_string: str, fields: dict[str, Any]) -> bytes:
    """hashStruct as EIP-712 section 'Definition of hashStruct' says."""
    words = [keccak(text=type_string)]
    for member in type_string.partition("(")[2].rstrip(")").split(","):
        kind, name = member.split(" ")
        value = fields[name]
        if kind == "string":
            words.append(keccak(text=value))
        elif kind.startswith("bytes"):
            words.append(raw(value).ljust(32, b"\0"))
        elif kind == "address":
            words.append(raw(value).rjust(32, b"\0"))
        else:
            words.append(int(value).to_bytes(32, "big"))
    return keccak(b"".join(words))


def digest_by_hand(domain: dict[str, str], struct_hash: bytes) -> bytes:
    separator = keccak(
        keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
        + keccak(text="gpumarket")
        + keccak(text="2")
        + int(domain["chainId"]).to_bytes(32, "big")
        + raw(domain["verifyingContract"]).rjust(32, b"\0")
    )
    return keccak(b"\x19\x01" + separator + struct_hash)


@pytest.mark.parametrize(
    "model",
    [
        Bid,
        Ask,
        Claim,
        Approval,
        Rejection,
        Report,
        AuditNote,
        AccessToken,
        AuditorGrant,
        EncryptionKey,
        KeyGrant,
        Receipt,
    ],
)
def test_orders_hash_and_recover(model: type[SignedType]) -> None:
    golden = load("orders.json")
    entry = dict(golden[model.__name__.lower()])
    expected, signer = entry.pop("hash"), entry.pop("signer")
    compact, full = entry.pop("signature"), entry.pop("signature65")
    assert digest_by_hand(golden["domain"], by_hand(ENCODINGS[model.__name__], entry)) == raw(expected)
    domain = Domain.model_validate(golden["domain"])
    order = model.model_validate(entry)
    assert order.digest(domain) == expected
    assert order.signer(domain, compact) == signer == order.signer(domain, full)
    assert Account.recover_message(order.signable(domain), signature=full) == signer
    assert len(raw(compact)) == 64
    assert raw(compact)[:32] == raw(full)[:32]


def test_a_signature_is_for_one_order_on_one_escrow() -> None:
    golden = load("orders.json")
    domain = Domain.model_validate(golden["domain"])
    entry = dict(golden["bid"])
    _, signer, compact, full = (entry.pop(k) for k in ("hash", "signer", "signature", "signature65"))
    bid = Bid.model_validate(entry)
    assert bid.model_copy(update={"max_price": bid.max_price + 1}).signer(domain, compact) != signer
    assert bid.signer(Domain(chain_id=1, verifying_contract=domain.verifying_contract), compact) != signer
    order_of_curve = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high_s = order_of_curve - int(full[66:130], 16)  # the same signature, malleated: refused
    malleated = full[:66] + f"{high_s:064x}" + ("1b" if full.endswith("1c") else "1c")
    assert bid.signer(domain, malleated) is None
    for broken in ("0x", "0x00", compact[:-2], full + "00", "0x" + "ff" * 65):
        assert bid.signer(domain, broken) is None


def test_rules_hash() -> None:
    entry = dict(load("orders.json")["rules"])
    expected = entry.pop("hash")
    assert by_hand(ENCODINGS["Rules"], entry) == raw(expected)
    assert Rules.model_validate(entry).struct_hash() == expected


def test_lease_id_and_packed_words() -> None:
    golden = load("orders.json")
    entry = golden["lease"]
    p = entry["parties"]
    parties = Parties(
        p["bid"], p["job"], p["prev"], p["rules"], p["client"], p["approver"], p["feeTo"], int(p["stake"])
    )
    nums = Nums(*(int(entry[name]) for name in Nums._fields))
    parties_hash = keccak(
        b"".join(raw(p[k]).rjust(32, b"\0") for k in ("bid", "job", "prev", "rules", "client", "approver", "feeTo"))
        + int(p["stake"]).to_bytes(32, "big")
    )
    assert parties_hash == raw(entry["partiesHash"]) == raw(parties.hash())
    words = raw(entry["provider"]).rjust(32, b"\0") + raw(entry["nums"]) + nums.ask_price.to_bytes(32, "big")
    assert keccak(words + parties_hash) == raw(entry["id"])
    assert Terms(entry["provider"], nums, parties).lease == entry["id"]
    word = f"{nums.start:04x}{nums.end:04x}{nums.window:08x}{nums.timeout:08x}{nums.price:024x}{nums.fee:016x}"
    assert entry["nums"] == "0x" + word
    assert Nums.unpack(nums.pack(), nums.ask_price) == nums
    assert nums.ask_price == int(golden["lowestPrice"]) < nums.price

    s = golden["state"]
    state = StateWord(*(int(s[k]) for k in ("status", "settled", "accepted", "claimed", "t")), int(s["tip"], 16))
    assert f"0x{state.pack():064x}" == s["word"]
    assert s["word"] == "0x" + f"{0x42:02x}{1:04x}{2:04x}{3:04x}{1_800_000_000:010x}" + s["tip"][2:]
    assert StateWord.unpack(state.pack()) == state
    a = golden["account"]
    account = AccountWord(*(int(a[k]) for k in ("free", "active", "page", "used")))
    assert f"0x{account.pack():064x}" == a["word"]
    assert AccountWord.unpack(account.pack()) == account
    with pytest.raises(ValueError, match="does not fit in 16 bits"):
        account._replace(active=1 << 16).pack()


# ------------------------------------------------------------------ checkpoints


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def plain_merkle(hashes: list[bytes]) -> bytes:
    """Recursive instead of level by level: the left half is the largest power of two below the count."""
    if not hashes:
        return sha(b"\0")
    if len(hashes) == 1:
        return hashes[0]
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return sha(b"\1", plain_merkle(hashes[:half]), plain_merkle(hashes[half:]))


def test_checkpoint_roots_and_tips() -> None:
    golden = load("checkpoints.json")
    tip = raw(golden["job"])[:20]
    assert raw(golden["tip0"]) == tip
    for c in golden["checkpoints"]:
        headers = []
        for t in sorted(c["tensors"], key=lambda t: t["name"].encode()):
            data, name, dtype = raw(t["data"]), t["name"].encode(), t["dtype"].encode()
            leaves = [sha(b"\0", data[i : i + 4096]) for i in range(0, len(data), 4096)]
            header = len(name).to_bytes(2, "big") + name + bytes([len(dtype)]) + dtype + bytes([len(t["shape"])])
            header += b"".join(int(d).to_bytes(8, "big") for d in t["shape"]) + len(data).to_bytes(8, "big")
            headers.append(sha(b"\2", header, plain_merkle(leaves)))
        state = sha(b"\3", len(headers).to_bytes(4, "big"), plain_merkle(headers), sha(b"\6", c["kinds"].encode()))
        digests = [raw(d) for d in c["stepDigests"]]
        trace = sha(b"\5", len(digests).to_bytes(4, "big"), plain_merkle(digests))
        assert (state, trace) == (raw(c["stateRoot"]), raw(c["traceRoot"]))
        root = keccak(
            encode(
                ["bytes32", "bytes32", "uint256", "uint256", "bytes32", "bytes32", "bytes32"],
                [
                    keccak(b"gpumarket checkpoint 2"), raw(golden["job"]), int(c["index"]), int(c["step"]), state,
                    trace, raw(golden["numericsClass"]),
                ],
            )
        )  # fmt: skip
        assert root == raw(c["root"])
        tip = keccak(tip + root)[:20]
        assert tip == raw(c["tip"])


def test_state_root_commits_to_everything_but_the_order() -> None:
    a = Tensor("a", "F32", (2,), bytes(8))
    b = Tensor("b", "F32", (1, 2), bytes(8))
    root = commitment.state_root([a, b], {"a": "array", "c": "none"})
    assert commitment.state_root([b, a], {"c": "none", "a": "array"}) == root
    changed = [
        [a._replace(name="c"), b],
        [a._replace(dtype="I32"), b],
        [a._replace(shape=(1, 2)), b],
        [a._replace(data=bytes(7) + b"\1"), b],
        [a],
        [a, b, Tensor("c", "F32", (0,), b"")],
    ]
    roots = {commitment.state_root(tensors, {"a": "array", "c": "none"}) for tensors in changed}
    roots |= {commitment.state_root([a, b], kinds) for kinds in ({}, {"a": "array"}, {"b": "array", "c": "none"})}
    assert len(roots) == len(changed) + 3 and root not in roots
    with pytest.raises(ValueError, match="two tensors are named 'a'"):
        commitment.state_root([a, a], {})


def safetensors_file(header: Any, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def test_a_safetensors_file_is_read_as_its_library_reads_it() -> None:
    arrays = {
        "a/b": np.arange(12, dtype=np.float32).reshape(3, 4),
        "é": np.array(7, dtype=np.int64),
        "none": np.zeros((0, 2**40), dtype=np.uint8),
        "yes": np.array([True, False]),
    }
    data = save(arrays, metadata={"made": "here"})
    found = {tensor.name: tensor for tensor in commitment.tensors_from_safetensors(memoryview(data))}
    library = {name: Tensor(name, one["dtype"], tuple(one["shape"]), one["data"]) for name, one in deserialize(data)}
    assert commitment.state_root(found.values(), {}) == commitment.state_root(library.values(), {})
    assert bytes(found["a/b"].data) == arrays["a/b"].tobytes() and found["é"].shape == ()


def test_an_epochs_root_by_hand() -> None:
    golden = load("epoch.json")
    header = json.loads(golden["header"])  # no number in it is beyond a double, no key beyond ASCII
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    leaf = keccak(b"gpumarket epoch" + keccak(canonical))
    assert leaf == raw(golden["leaf"])
    orders = sorted(raw(id) for id in golden["orders"])
    assert plain_merkle([leaf, *(keccak(b"gpumarket order" + id) for id in orders)]) == raw(golden["root"])


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


@pytest.mark.parametrize(
    ("header", "content"),
    [
        (b"", b""),
        (b"[]", b""),
        (b"{", b""),
        ({"a": ENTRY}, bytes(7)),
        ({"a": ENTRY}, bytes(9)),
        ({"a": ENTRY | {"shape": [3]}}, bytes(8)),
        ({"a": ENTRY | {"shape": [-2]}}, bytes(8)),
        ({"a": ENTRY | {"shape": [2.0]}}, bytes(8)),
        ({"a": ENTRY | {"shape": [2**64, 0], "data_offsets": [0, 0]}}, b""),
        ({"a": ENTRY | {"dtype": "F33"}}, bytes(8)),
        ({"a": ENTRY | {"dtype": "F33", "data_offsets": [0, 0]}}, b""),
        ({"a": ENTRY | {"data_offsets": [4, 12]}}, bytes(12)),
        ({"a": ENTRY, "b": ENTRY}, bytes(8)),
        ({"a": ENTRY, "b": ENTRY | {"data_offsets": [12, 20]}}, bytes(20)),
        ({"a": ENTRY | {"more": 1}}, bytes(8)),
        ({"a": [1]}, bytes(8)),
        ({"\ud800": ENTRY}, bytes(8)),
        (b'{"a": %b, "a": %b}' % ((json.dumps(ENTRY).encode(),) * 2), bytes(8)),
        (b"{" + b'"a":{' * 100_000, b""),
        ({"a": ENTRY | {"shape": [2**64 - 1] * 100_000}}, bytes(8)),  # whose product takes minutes
        # What the library can't load, or nobody could check in seconds.
        ({"a": EMPTY | {"shape": [0, 2**63]}}, b""),
        ({"a": EMPTY | {"shape": [2**62, 2**62, 0]}}, b""),
        ({"a": EMPTY | {"shape": [0] * 65}}, b""),
        ({str(n): EMPTY for n in range(commitment.MAX_TENSORS + 1)}, b""),
        (b"{" + b" " * commitment.MAX_HEADER + b"}", b""),
        ({"__metadata__": {"a": "b" * commitment.MAX_METADATA}}, b""),
        ({"__metadata__": {"a": 1}}, b""),
        ({"__metadata__": ["a"]}, b""),
        (json.dumps({"a": ENTRY}).encode("utf-16-le"), bytes(8)),
        ({"a": ENTRY | {"shape": [float("nan")]}}, bytes(8)),
        ({"a": EMPTY | {"shape": "", "dtype": "F64", "data_offsets": [0, 8]}}, bytes(8)),  # as if it were []
        ({"a": EMPTY | {"shape": {}, "dtype": "F64", "data_offsets": [0, 8]}}, bytes(8)),
        (b'{"a": {"dtype": "F32", "shape": [-0], "data_offsets": [0, 0]}}', b""),
        (b'{"a": {"dtype": "F32", "shape": [0], "data_offsets": [-0, 0]}}', b""),
    ],
)  # fmt: skip
def test_what_is_no_safetensors_file_is_refused(header: Any, content: bytes) -> None:
    with pytest.raises(ValueError, match="not a safetensors file"):
        commitment.tensors_from_safetensors(safetensors_file(header, content))


def test_the_largest_state_that_is_taken_loads_in_its_library() -> None:
    header = {f"layer/{n}": EMPTY for n in range(commitment.MAX_TENSORS - 1)}
    header["wide"] = EMPTY | {"shape": [0, *([1] * (commitment.MAX_DIMENSIONS - 2)), 2**59]}
    data = safetensors_file(header)
    found = commitment.tensors_from_safetensors(data)
    assert {one.name: one.shape for one in found} == {name: tuple(one["shape"]) for name, one in deserialize(data)}
    assert len(load_arrays(safetensors_file({"wide": header["wide"] | {"shape": [0, 2**59]}}))) == 1


@pytest.mark.parametrize(
    ("shapes", "metadata", "says"),
    [
        ({str(n): (1,) for n in range(commitment.MAX_TENSORS + 1)}, 0, "65537 tensors"),
        ({"a": (1,) * 65}, 0, "'a' has the shape"),
        ({"a": (0, 2**61)}, 0, "'a' has the shape"),
        ({"n" * 300 + str(n): (1,) for n in range(50_000)}, 0, "bytes; a checkpoint has room for"),
        ({"a": (1,)}, commitment.MAX_HEADER, "bytes; a checkpoint has room for"),
    ],
)
def test_a_state_that_is_too_large_is_told_before_it_is_saved(shapes: Any, metadata: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        commitment.check_state_size(shapes, metadata)


def test_a_state_that_just_fits_can_be_read_back() -> None:
    """What is told to fit is read: the estimate is never below what the library writes."""
    shapes = {f"optimizer/état/{n}/exp_avg": (0, n + 1, 2**40) for n in range(3000)}
    commitment.check_state_size(shapes)
    data = save({name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()})
    room = commitment.MAX_HEADER - int.from_bytes(data[:8], "little")
    with pytest.raises(ValueError, match="a checkpoint has room for"):
        commitment.check_state_size(shapes, room + 1)
    assert len(commitment.tensors_from_safetensors(data)) == 3000


def test_odd_merkle_levels_match_the_recursive_definition() -> None:
    for count in range(34):
        hashes = [sha(bytes([n])) for n in range(count)]
        assert commitment.merkle_root(hashes) == plain_merkle(hashes)


def test_a_trace_of_many_blocks_has_the_root_of_one_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [sha(bytes([n])) for n in range(34)]
    whole = [commitment.trace_root(digests[:count]) for count in range(34)]
    monkeypatch.setattr(commitment, "BLOCK", 4)
    assert [commitment.trace_root(iter(digests[:count])) for count in range(34)] == whole


def test_seeds_and_samples() -> None:
    golden = load("checkpoints.json")
    for step, seed in zip((1, 2, 3), golden["stepSeeds"], strict=True):
        stream = sha(b"gpumarket step", (42).to_bytes(8, "big"), step.to_bytes(8, "big"))
        assert int(seed) == int.from_bytes(stream[:8], "big") % 2**63
    positions = commitment.sample_positions(42, 1, 1000)
    assert [int(p) for p in golden["samplePositions"]] == positions[:8]
    assert len(positions) == 256 and all(0 <= p < 1000 for p in positions)
    assert commitment.sample_positions(42, 2, 1000) != positions
    assert commitment.sample_positions(42, 1, 0) == []


@pytest.mark.parametrize("part", [None, "more", "sealed", "choosy", "named"])
def test_job_hash(part: str | None) -> None:
    golden = load("job.json")
    golden = golden[part] if part else golden
    spec_json = golden["spec"]
    for name in {"seed", "steps", "checkpoint_every", "version", "start_step"} & spec_json.keys():
        spec_json[name] = int(spec_json[name])
    if "stop" in spec_json:
        spec_json["stop"]["patience"] = int(spec_json["stop"]["patience"])
    spec_json["files"] = {p: {**f, "size": int(f["size"])} for p, f in spec_json["files"].items()}
    resources = spec_json["resources"]
    spec_json["resources"] = {k: v if isinstance(v, list) else int(v) for k, v in resources.items()}
    config = spec_json["config"]
    config["hidden"], config["layers"] = int(config["hidden"]), [int(n) for n in config["layers"]]
    spec = JobSpec.model_validate(spec_json)
    assert spec.canonical().decode() == golden["canonical"]
    # sorted keys, no spaces, UTF-8: what RFC 8785 says, for values that json writes the same way
    assert json.dumps(spec_json, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == golden["canonical"]
    assert keccak(text=golden["canonical"]) == raw(golden["job"]) == spec.job_hash()
