"""Checkpoints that are slow to check, at a market and an approver of their own, and an honest one behind them."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from eth_account.signers.local import LocalAccount

from contracts.api.bodies import CheckpointStatus, LeaseOut
from contracts.api.client import MarketClient
from contracts.api.info import RuleSet
from contracts.statefile import file_state_root
from contracts.types import to_hex
from scripts.lib.demo.parties import Party
from tests.bench._victim import Victim, victim
from tests.support.market_parts import RECIPE, make_ask, make_bid, make_record, make_spec, signed_ask, signed_bid
from tests.support.market_parts import signed_progress as signed
from tests.support.stepped_market import safetensors_bytes

LEASES_SECONDS = 60.0
APPROVED_SECONDS = 120.0  # after which it is given up


def approved_behind_bad() -> float:
    """Seconds from an honest Claim to its Approval, while each of `_bad_files` waits before it."""
    with victim() as attacked, tempfile.TemporaryDirectory(prefix="gpumarket-bench-") as folder:
        approver = _approver(attacked)
        files = [*_bad_files(Path(folder)), _honest_file(Path(folder))]
        stage = _Leases(attacked, approver, len(files))
        for (provider, lease), path in zip(stage.leases, files, strict=True):
            posted = time.monotonic()
            stage.claim(provider, lease, path, is_honest=path == files[-1])
        honest = stage.leases[-1][1]
        while time.monotonic() - posted < APPROVED_SECONDS:
            (found,) = stage.api.checkpoints(honest.job)
            if found.status is CheckpointStatus.APPROVED:
                return time.monotonic() - posted
            time.sleep(0.05)
        raise RuntimeError(f"it was not approved in {APPROVED_SECONDS:g} s\n{approver.tail('approver')}")


def _approver(attacked: Victim) -> Party:
    party = attacked.stage.party("approver")
    config = (attacked.stage.party("operator").home / "config.toml").read_text()
    (party.home / "config.toml").write_text(f'market_url = "{attacked.url}"\n' + config)
    party.new_key()
    party.start("approver", "approver", "start")
    return party


def _bad_files(folder: Path) -> Iterator[Path]:
    """As many tensors as a state may have, and more; names as long as a header may be; and much to hash."""
    shapes = [(65_536, "t"), (65_536, "t" * 150), (300_000, "t"), (1_650_000, "t")]
    for number, (count, name) in enumerate(shapes):
        entry = ':{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
        text = ("{" + ",".join(f'"{name}{n}"{entry}' for n in range(count)) + "}").encode()
        path = folder / f"bad{number}"
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        yield path
    path = folder / "large"
    path.write_bytes(safetensors_bytes({"weight": bytes(1 << 29)}))
    yield path


def _honest_file(folder: Path) -> Path:
    path = folder / "honest"
    path.write_bytes(safetensors_bytes({"weight": bytes(1000)}))
    return path


class _Leases:
    """Live leases of one client's jobs, each with a provider of its own."""

    def __init__(self, attacked: Victim, approver: Party, count: int) -> None:
        self._attacked, self._domain = attacked, attacked.chain.domain
        self.api = attacked.api()
        info = self.api.info()
        rules: RuleSet = next(one for one in info.rules)
        client = attacked.rich_key(100 * count)
        recipe = approver.home / "recipe.py"
        recipe.write_bytes(RECIPE)
        attacked.api(client).put_blob(recipe)
        self.leases: list[tuple[LocalAccount, LeaseOut]] = []
        for nonce in range(count):
            provider, spec = attacked.rich_key(100), make_spec(seed=nonce)
            ask = make_ask(provider, info.matcher, rules.rules)
            self.api.post_ask(signed_ask(ask, self._domain, provider))
            bid = make_bid(
                client, info.matcher, rules.rules, spec, approver=approver.address(), nonce=nonce, fee=info.fee
            )
            job = self.api.post_bid(signed_bid(bid, self._domain, client, spec))
            self.leases.append((provider, _lease_of(self.api, job.id)))
        by_address = {provider.address: provider for provider, _ in self.leases}
        self.leases = [(by_address[lease.provider], lease) for _, lease in self.leases]

    def claim(self, provider: LocalAccount, lease: LeaseOut, path: Path, *, is_honest: bool) -> None:
        """Of the first checkpoint, whose state is that file; with its root, or with one that is made up."""
        ref = self._attacked.api(provider).put_blob(path)
        root = to_hex(file_state_root(path)) if is_honest else "0x" + "11" * 32
        record = make_record(lease.bid.job, 1, lease.state.tip, state_root=root, state=b"").model_copy(
            update={"state": ref}
        )
        self.api.post_progress(signed(lease.id, record, self._domain, provider))


def _lease_of(api: MarketClient, job: str) -> LeaseOut:
    ends = time.monotonic() + LEASES_SECONDS
    while time.monotonic() < ends:
        if leases := api.job(job).leases:
            return api.lease(leases[-1].id)
        time.sleep(0.1)
    raise RuntimeError(f"job {job} got no lease in {LEASES_SECONDS:g} s")
