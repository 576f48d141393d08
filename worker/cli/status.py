"""What `gpumarket provider status` shows: the chain's word where it has one, the agent's files for the rest."""

import math
import textwrap
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from contracts.amounts import format_amount
from contracts.chain.client import Chain
from contracts.cli.output import marked
from contracts.finality import at_stake
from contracts.terms import Phase
from contracts.wallet import keys
from worker.lease.folder import LeaseFile, LeaseFolder, Store
from worker.machine.presence import read_wish
from worker.machine.troubles import disk_trouble, environment_trouble, gpu_trouble
from worker.pauses import decide
from worker.sandbox.podman import chosen_sandbox
from worker.settings import ProviderSettings, provider_settings_path, read_provider_settings

REASON_COLUMNS = 56  # beside the names, on a terminal of 80


def status_report(chain: Chain, store: Store, key: str) -> dict[str, Any]:
    """All of it as JSON; money in the token's smallest unit."""
    address = keys.address(key)
    account = chain.account(address)
    leases = [_lease(chain, folder) for folder in store.leases() if folder.file.goal != "over"]
    over = [(folder.lease, folder.file) for folder in store.leases() if folder.file.goal == "over"]
    ended = [_ended(lease, file) for lease, file in [*over, *store.ended()]]
    settings = read_provider_settings(key) if provider_settings_path(key).exists() else None
    runtime = chosen_sandbox(settings.sandbox, settings.image) if settings else chosen_sandbox()
    problem = runtime.problem()
    return {
        "key": key,
        "provider": address,
        "agent": "running" if store.is_running() else "stopped",
        "paused": _paused(key, settings),
        "waits": _why_no_ask(store, settings),
        "no_lease": str(store.read_state().get("no_lease", "")),
        "sandbox": runtime.kind if problem is None else f"none ({problem})",
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


def _why_no_ask(store: Store, settings: ProviderSettings | None) -> list[str]:
    """What the running agent says; of one that does not run, what it would find."""
    if store.is_running():
        return [str(reason) for reason in store.read_state().get("waits", [])]
    looks = (gpu_trouble, environment_trouble, disk_trouble) if settings else ()
    return [f"{found.what} ({found.mend})" for look in looks if settings and (found := look(settings))]


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
        "waits": file.waits,
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
    return _common(lease, file) | {"redeemed": file.settled, "reason": file.reason, "penalty": str(file.penalty),
                                        "verdict": file.verdict}  # fmt: skip


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


def _paused(key: str, settings: ProviderSettings | None) -> str:
    """Why the agent pauses, by wish or by hour; whom it makes room for, only its log tells."""
    hours = settings.owner.hours if settings else ()
    pause = decide(time.time(), read_wish(key), hours, None)
    if pause is None:
        return ""
    if math.isinf(pause.until):
        return f"{pause.reason}, until `gpumarket provider resume`"
    return f"{pause.reason}, until {datetime.fromtimestamp(pause.until, UTC).astimezone():%a %H:%M}"


def status_tables(reports: Sequence[dict[str, Any]]) -> list[Table]:
    """One lot as a list of facts, several as a line each; below them the leases of all."""
    shown = [_facts(reports[0]) if len(reports) == 1 else _lots(reports)]
    leases = [(report, lease) for report in reports for lease in [*report["live"], *report["ended"]]]
    return [*shown, _leases(leases, several=len(reports) > 1)] if leases else shown


def _tokens(report: dict[str, Any], amount: str | int) -> str:
    return f"{format_amount(int(amount), report['decimals'])} {report['token']}"


def _facts(report: dict[str, Any]) -> Table:
    facts = Table(show_header=False, box=None)
    rows = {
        "provider": f"{report['provider']}  (key '{report['key']}')",
        "agent": report["agent"],
        "sandbox": report["sandbox"],
        "in the wallet": _tokens(report, report["held"]),
        "free in the escrow": _tokens(report, report["free"]),
        "staked": _tokens(report, report["staked"]),
        "earned": _tokens(report, report["earned"]),
        "leases": f"{len(report['live'])} live, {len(report['ended'])} ended",
    }
    if int(report["unfinal"]):
        rows["earned, not final yet"] = _tokens(report, report["unfinal"])
    if report["paused"]:
        rows["paused"] = report["paused"]
    if report["waits"]:
        rows["no Ask"] = "\n".join(textwrap.fill(reason, REASON_COLUMNS) for reason in report["waits"])
    if report["no_lease"]:
        rows["no lease"] = textwrap.fill(report["no_lease"], REASON_COLUMNS)
    if int(report["penalties"]):
        rows["penalties"] = _tokens(report, report["penalties"])
    for what, value in rows.items():
        facts.add_row(marked("[bold]{}[/]", what), value)
    return facts


def _lots(reports: Sequence[dict[str, Any]]) -> Table:
    shown = Table("lot", "agent", "wallet", "free", "staked", "earned", "penalties", "live", "ended", box=None)
    money = ("held", "free", "staked", "earned", "penalties")
    for report in reports:
        shown.add_row(
            report["key"],
            report["agent"] + (", paused" if report["paused"] else ", no Ask" if report["waits"] else ""),
            *(_tokens(report, report[name]) for name in money),
            *(str(len(report[name])) for name in ("live", "ended")),
        )
    sums = (_tokens(reports[0], sum(int(report[name]) for report in reports)) for name in money)
    counts = (str(sum(len(report[name]) for report in reports)) for name in ("live", "ended"))
    shown.add_row("total", "", *sums, *counts)
    return shown


def _leases(leases: Sequence[tuple[dict[str, Any], dict[str, Any]]], *, several: bool) -> Table:
    """Of pairs of a lot's report and one of its leases."""
    names = ("lease", "job", "checkpoints", "made", "approved", "paid", "state", "earned")
    shown = Table(*(("lot",) if several else ()), *names, box=None)
    for report, lease in leases:
        state = lease.get("phase", "ended")
        if lease.get("waits"):
            state += f": {lease['waits']}"
        if lease.get("verdict"):
            state += f", verdict {lease['verdict']}"
        if lease["reason"]:
            state += f": {lease['reason'].splitlines()[0][:60]}"
        shown.add_row(
            *((report["key"],) if several else ()),
            lease["lease"][:10],
            lease["job"][:10],
            f"{lease['start'] + 1}-{lease['end']}",
            *(str(lease[name]) for name in ("made", "approved", "redeemed")),
            state,
            format_amount(int(lease["earned"]), report["decimals"]),
        )
    return shown
