"""What came of the demo: as data, what of it is wrong, and where every token is."""

import time
from typing import Any

from rich.table import Table

from contracts.api.bodies import JobOut
from scripts.lib.demo.play import Demo, console


def outcome(demo: Demo, jobs: dict[str, JobOut], after: dict[str, int], held: dict[str, bool]) -> dict[str, Any]:
    """For --json. `after` is each party's wealth at the end, `held` what was checked."""
    return {
        "jobs": [
            {
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
            for job in jobs.values()
        ],
        "parties": {
            name: {"address": demo.address(name), "before": str(demo.before[name]), "after": str(after[name])}
            for name in demo.before
        },
        "killed": demo.killed,
        **held,
        "seconds": round(time.monotonic() - demo.stage.started, 1),
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
    found += [f"{name} is false" for name in ("reconciled", "verified", "bit_identical") if not result[name]]
    return found


def summary(demo: Demo, result: dict[str, Any]) -> None:
    table = Table("party", "before", "after", "change", title="Every token accounted for", title_justify="left")
    for name, party in result["parties"].items():
        before, after = int(party["before"]), int(party["after"])
        sign = "+" if after > before else "-" if after < before else ""
        change = sign + demo.tokens(abs(after - before))
        table.add_row(name, demo.tokens(before), demo.tokens(after), change)
    console.print(table)
