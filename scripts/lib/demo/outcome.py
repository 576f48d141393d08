"""What came of the demo: as data, what of it is wrong, and where every token is."""

import time
from typing import Any

from rich.table import Table

from contracts.api.bodies import JobOut
from scripts.lib.demo.play import HONEST, LIAR, LIED_TO, Demo
from scripts.lib.demo.scene import console

CONVICTED = "the arbiter: false"


def outcome(demo: Demo, jobs: dict[str, JobOut], after: dict[str, int], held: dict[str, bool]) -> dict[str, Any]:
    """For --json. `after` is each party's wealth at the end, `held` what was checked."""
    replays = [demo.market.job(job.id) for job in demo.market.jobs(client=demo.address("approver"))]
    return {
        "jobs": [_of(job) for job in jobs.values()],
        "replays": [_of(job) for job in replays],
        "parties": {
            name: {"address": demo.account_of(name), "before": str(demo.before[name]), "after": str(after[name])}
            for name in demo.before
        },
        "lie": {
            "agreed": demo.lie.agreed,
            "noticed": demo.lie.noticed,
            "seconds": demo.lie.seconds,
            "ended": demo.lie.ended,
            "ruled": demo.lie.ruled,
        },
        "killed": demo.killed,
        **held,
        "seconds": round(time.monotonic() - demo.stage.started, 1),
    }


def _of(job: JobOut) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "status": str(job.status),
        "checkpoints": job.accepted,
        "wanted": job.bid.checkpoints,
        "leases": [lease.model_dump(mode="json") for lease in job.leases],
        "paid": str(job.paid),
        "fees": str(job.fees),
        "refunded": str(sum(lease.refunded for lease in job.leases)),
    }


def problems(result: dict[str, Any]) -> list[str]:
    """What must hold for the demo to have worked, and does not."""
    found = []
    for job in result["jobs"]:
        if job["status"] != "done" or job["checkpoints"] != job["wanted"]:
            found.append(f"job {job['name']} is {job['status']} with {job['checkpoints']} of {job['wanted']}")
        for lease in job["leases"]:
            done = lease["state"]["accepted"] - lease["start"]
            if int(lease["paid"]) != done * int(lease["price"]):
                found.append(f"lease {lease['id']} was paid {lease['paid']} for {done} checkpoints at {lease['price']}")
    parties = result["parties"].values()
    before, after = (sum(int(party[when]) for party in parties) for when in ("before", "after"))
    if before != after:
        found.append(f"all parties together had {before} before and {after} after")
    if result["killed"] is None:
        found.append("no provider was killed")
    elif not any(len({lease["provider"] for lease in job["leases"]}) > 1 for job in result["jobs"]):
        found.append("no job moved to another provider")
    lie = result["lie"]
    if not lie["agreed"]:
        found.append("no replay agreed")
    if not lie["noticed"]:
        found.append("nobody noticed the lie")
    elif lie["ended"] != CONVICTED:
        found.append(f"the lie was ended by {lie['ended'] or 'nobody'}, not by {CONVICTED}")
    held = ("reconciled", "audited", "verified", "bit_identical")
    found += [f"{name} is false" for name in held if not result[name]]
    return found


def summary(demo: Demo, result: dict[str, Any]) -> None:
    table = Table("party", "before", "after", "change", title="Every token accounted for", title_justify="left")
    for name, party in result["parties"].items():
        before, after = int(party["before"]), int(party["after"])
        sign = "+" if after > before else "-" if after < before else ""
        change = sign + demo.tokens(abs(after - before))
        table.add_row(name, demo.tokens(before), demo.tokens(after), change)
    console.print(table)


def lie_told(demo: Demo, result: dict[str, Any]) -> None:
    """What the liar has of it, and what the honest lost."""
    (lied, *_), parties = [job for job in result["jobs"] if job["id"] == demo.jobs[LIED_TO]], result["parties"]
    price = int(lied["leases"][0]["price"])
    gained = {name: int(parties[name]["after"]) - int(parties[name]["before"]) for name in (LIAR, LIED_TO, HONEST)}
    spent = sum(int(job["paid"]) + int(job["fees"]) for job in result["replays"])
    table = Table("the lie of one checkpoint", "", title="One lie caught", title_justify="left")
    table.add_row("who noticed", demo.lie.sentence())
    honest = sum(int(lease["paid"]) for lease in lied["leases"] if lease["provider"] == parties[LIAR]["address"])
    cost = f"{(honest - gained[LIAR]) / price:.2f} prices of a checkpoint, and it was paid {honest / price:.0f}"
    table.add_row("what it cost the liar", f"{cost} for honest ones")
    lost = max(0, -gained[LIED_TO] - int(lied["paid"]) - int(lied["fees"]))
    table.add_row("what its client lost", f"{demo.tokens(lost)} tokens, and some time")
    table.add_row(
        "what looking cost",
        f"{demo.tokens(spent)} tokens for replays by others, paid by the approver, who has the challenger's share",
    )
    console.print(table)
