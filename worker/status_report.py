"""What `gpumarket provider status` shows: the chain's word where it has one, the agent's files for the rest."""

import math
import time
from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.table import Table

from contracts import keys
from contracts.amounts import format_amount
from contracts.chain.client import Chain
from contracts.chain.finality import at_stake
from contracts.terms import Phase
from worker import sandbox
from worker.offer import offer_path, read_offer
from worker.owner import decide
from worker.presence import read_wish
from worker.store import LeaseFile, LeaseFolder, Store


def make(chain: Chain, store: Store, key: str) -> dict[str, Any]:
    """All of it as JSON; money in the token's smallest unit."""
    address = keys.address(key)
    account = chain.account(address)
    leases = [_lease(chain, folder) for folder in store.leases() if folder.file.goal != "over"]
    over = [(folder.lease, folder.file) for folder in store.leases() if folder.file.goal == "over"]
    ended = [_ended(lease, file) for lease, file in [*over, *store.ended()]]
    problem = sandbox.bubblewrap_problem()
    return {
        "key": key,
        "provider": address,
        "agent": "running" if store.is_running() else "stopped",
        "paused": _paused(key),
        "sandbox": "bubblewrap" if problem is None else f"none ({problem})",
        "held": str(chain.token_balance(address)),
        "free": str(account.free),
        "staked": str(sum(int(lease["stake"]) for lease in leases)),
        "earned": str(sum(int(lease["earned"]) for lease in [*leases, *ended])),
        "unfinal": str(sum(int(lease["unfinal"]) for lease in leases)),
        "penalties": str(sum(int(lease["penalty"]) for lease in ended)),
        "token": chain.symbol,
        "decimals": chain.decimals,
        "gas_wei": str(chain.w3.eth.get_balance(chain.w3.to_checksum_address(address))),
        "live": leases,
        "ended": ended,
    }


def _lease(chain: Chain, folder: LeaseFolder) -> dict[str, Any]:
    file = folder.file
    state = chain.state(folder.lease)
    gone = state.phase in (Phase.NONE, Phase.CLOSED)
    earned = (_final_settled(chain, folder) - file.nums.start) * file.nums.price
    return _common(folder.lease, file) | {
        "earned": str(earned),
        "unfinal": str(file.earned - earned),
        "phase": state.phase.name.lower(),
        "goal": file.goal,
        "reason": file.reason,
        "redeemed": file.accepted if gone else state.settled,
        "claimed": file.accepted if gone else state.claimed,
    }


def _final_settled(chain: Chain, folder: LeaseFolder) -> int:
    """How far the lease is paid in a block that is deep enough for all that it holds."""
    file = folder.file
    depth = chain.settings.finality.confirmations(at_stake(file.nums, file.parties.stake))
    if depth == 0:
        return file.settled
    block = max(int(chain.w3.eth.block_number) - depth, chain.settings.deploy_block)
    return min(max(chain.state(folder.lease, block).settled, file.nums.start), file.settled)


def _ended(lease: str, file: LeaseFile) -> dict[str, Any]:
    return _common(lease, file) | {"redeemed": file.settled, "reason": file.reason, "penalty": str(file.penalty)}


def _common(lease: str, file: LeaseFile) -> dict[str, Any]:
    return {
        "lease": lease,
        "job": file.parties.bid,
        "start": file.nums.start,
        "end": file.nums.end,
        "price": str(file.nums.price),
        "stake": str(file.parties.stake),
        "made": file.made,
        "reported": file.reported,
        "approved": file.approved,
        "earned": str(file.earned),
    }


def _paused(key: str) -> str:
    """Why the agent pauses, by wish or by hour; whom it makes room for, only its log tells."""
    hours = read_offer(key).owner.hours if offer_path(key).exists() else ()
    pause = decide(time.time(), read_wish(key), hours, None)
    if pause is None:
        return ""
    if math.isinf(pause.until):
        return f"{pause.reason}, until `gpumarket provider resume`"
    return f"{pause.reason}, until {datetime.fromtimestamp(pause.until, UTC).astimezone():%a %H:%M}"


def table(report: dict[str, Any]) -> Group:
    def tokens(name: str) -> str:
        return f"{format_amount(int(report[name]), report['decimals'])} {report['token']}"

    facts = Table(show_header=False, box=None)
    rows = {
        "provider": f"{report['provider']}  (key '{report['key']}')",
        "agent": report["agent"],
        "sandbox": report["sandbox"],
        "in the wallet": tokens("held"),
        "free in the escrow": tokens("free"),
        "staked": tokens("staked"),
        "earned": tokens("earned"),
        "leases": f"{len(report['live'])} live, {len(report['ended'])} ended",
    }
    if int(report["unfinal"]):
        rows["earned, not final yet"] = tokens("unfinal")
    if report["paused"]:
        rows["paused"] = report["paused"]
    if int(report["penalties"]):
        rows["penalties"] = tokens("penalties")
    for what, value in rows.items():
        facts.add_row(f"[bold]{what}[/]", value)
    return Group(facts, _leases(report)) if report["live"] or report["ended"] else Group(facts)


def _leases(report: dict[str, Any]) -> Table:
    shown = Table("lease", "job", "checkpoints", "made", "approved", "paid", "state", "earned", box=None)
    for lease in [*report["live"], *report["ended"]]:
        state = lease.get("phase", "ended")
        if lease["reason"]:
            state += f": {lease['reason'].splitlines()[0][:60]}"
        shown.add_row(
            lease["lease"][:10],
            lease["job"][:10],
            f"{lease['start'] + 1}-{lease['end']}",
            *(str(lease[name]) for name in ("made", "approved", "redeemed")),
            state,
            format_amount(int(lease["earned"]), report["decimals"]),
        )
    return shown
