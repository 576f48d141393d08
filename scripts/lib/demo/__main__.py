"""The demo: a market of separate processes on a local chain, and a provider that dies in the middle of a job."""

import argparse
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from scripts.lib.demo.outcome import lie_told, outcome, problems, summary
from scripts.lib.demo.parties import ROOT, Failure, Stage
from scripts.lib.demo.play import CLIENTS, HOME, LIED_TO, VICTIM_JOB, Demo
from scripts.lib.demo.scene import console


@contextmanager
def running(keep: bool) -> Iterator[Demo]:
    shutil.rmtree(HOME, ignore_errors=True)
    stage = Stage(HOME)
    try:
        yield Demo(stage)
        if keep:
            return
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            stage.stop_all()


def play(demo: Demo, keep: bool, timeout: int) -> dict[str, Any]:
    """Everything, in order; returns the outcome."""
    demo.start_chain_of(timeout)
    demo.make_parties()
    demo.start_services()
    with demo.open_market():
        jobs = demo.watch()
    demo.say("all jobs are over: " + ", ".join(f"{job.name} {job.status}" for job in jobs.values()))
    demo.stage.wait_for("the leases to end", demo.leases_are_over, patience=120)
    jobs = {client: demo.market.job(job.id) for client, job in jobs.items()}
    console.print(demo.table(jobs))
    if not keep:
        demo.stop_providers()
    after = {name: demo.wealth(name) for name in demo.before}
    demo.say("reconcile: chain against database against blobs; the audits; and the auctions that placed the killed job")
    checks = (
        demo.reconcile,
        partial(demo.verify_audit, LIED_TO, demo.jobs[LIED_TO]),
        partial(demo.verify_epochs, jobs[VICTIM_JOB]),
    )
    with ThreadPoolExecutor(len(checks)) as pool:
        answers = list(pool.map(lambda check: check(), checks))
    held = dict(zip(("reconciled", "audited", "verified"), (ok for ok, _ in answers), strict=True))
    console.print("\n".join(text.rstrip() for _, text in answers), markup=False)
    demo.say("the killed job against the same job trained without interruption, on one machine")
    held["bit_identical"] = demo.bit_identical(jobs[VICTIM_JOB])
    return outcome(demo, jobs, after, held)


def next_steps(demo: Demo) -> None:
    client = demo.stage.party(VICTIM_JOB)
    say = partial(console.print, soft_wrap=True)
    say("\nEverything still runs, but for the provider that was killed. Try, in another terminal:")
    say(f"  export PATH={ROOT}/.venv/bin:$PATH GPUMARKET_PASSWORD={demo.stage.password}")
    say(f"  export GPUMARKET_HOME={client.home} GPUMARKET_MARKET_URL={demo.stage.market_url}")
    say("  gpumarket job list")
    say(f"  gpumarket job pull {demo.jobs[VICTIM_JOB][:12]} ./checkpoints --all")
    say("  gpumarket wallet show")
    say(f"  gpumarket job submit {client.home / CLIENTS[VICTIM_JOB]}")
    say(f"  curl {demo.stage.market_url}/v1/info")
    say("Ctrl-C here stops it all.")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave all running at the end, until Ctrl-C")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcome as JSON")
    parser.add_argument(
        "--timeout", type=int, default=25, metavar="SECONDS",
        help="silence after which a provider has lost its lease; more of it on a busy machine (default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args()
    with running(options.keep) as demo:
        try:
            result = play(demo, options.keep, options.timeout)
        except Failure as failure:
            console.print(f"[red]The demo failed:[/] {failure}")
            return 1
        summary(demo, result)
        lie_told(demo, result)
        wrong = problems(result)
        if options.json:
            options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        for problem in wrong:
            console.print(f"[red]Wrong:[/] {problem}")
        if not wrong:
            seconds = result["seconds"]
            console.print(
                f"[green]All of it holds[/], in {seconds} s: three jobs done, one provider killed "
                "and no work lost, one lie caught."
            )
        if not options.keep:
            console.print("To look around in it: ./scripts/demo --keep. To take part: README.md, First ten minutes.")
        if options.keep:
            next_steps(demo)
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                demo.stage.stop_all()
    return 1 if wrong else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
