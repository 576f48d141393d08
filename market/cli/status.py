"""`gpumarket market status`: what still lives, and when a market that drains is drained."""

import time
from datetime import UTC, datetime

from contracts.chain.client import connect
from contracts.cli.output import Output, say
from contracts.settings import load_settings
from contracts.strict_json import write_json
from contracts.wallet import keys
from market.maintenance.remaining import look_at, paid_in
from market.runtime.settings import load_market_settings
from market.server import open_database


def show_status(output: Output) -> None:
    settings, chain = load_market_settings(), connect(load_settings())
    db, matcher = open_database(settings), keys.address(keys.choose(settings.key))
    approver = settings.recommended_approver or chain.settings.approver
    with db.reading() as session:
        found = look_at(session, chain, matcher, int(time.time()))
        replays = 0 if approver is None else paid_in(session, approver, matcher)
    free = 0 if approver is None else chain.account(approver).free
    until = None if found.until is None else datetime.fromtimestamp(found.until, UTC).isoformat(timespec="seconds")
    if output is Output.JSON:
        told = {
            "draining": settings.draining,
            "successor": settings.successor,
            "drained": settings.draining and found.drained,
            "escrow": chain.escrow.address,
            "leases": found.leases,
            "locked": str(found.locked),
            "stakes": str(found.stakes),
            "free": str(found.free),
            "burnt": str(found.burnt),
            "leases_of_others": found.others,
            "replays": {"reserve": str(settings.replay_reserve or 0), "paid_in": str(replays), "free": str(free)},
            "until": until,
        }
        print(write_json(told, indent=2))
        return
    drains = f"drains; orders go to {settings.successor or 'no other market'}" if settings.draining else "takes orders"
    say(f"market    {drains}")
    say(f"escrow    {chain.escrow.address}")
    say(f"leases    {', '.join(f'{count} {phase}' for phase, count in found.leases.items())}")
    say(f"in them   {chain.format_amount(found.locked)} of clients, {chain.format_amount(found.stakes)} of stakes")
    say(f"beside    {chain.format_amount(found.free)} in the escrow, which its owners may withdraw at any time")
    if settings.replay_reserve or replays:
        amount = chain.format_amount
        kept = amount(settings.replay_reserve or 0)
        say(f"replays   {amount(replays)} paid in for the approver, who has {amount(free)} free; {kept} is the least")
    if found.burnt:
        say(f"burnt     {chain.format_amount(found.burnt)} by voids, which nobody may withdraw")
    if found.others:
        say(f"others    {found.others} live leases of other markets on this escrow")
    if until is not None:
        say(f"until     {until} at the latest, if nobody challenges a claim")
    elif settings.draining:
        say("drained   nothing lives here any more")
