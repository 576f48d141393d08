"""`gpumarket provider earnings`, `withdraw`, `sweep`: what came of the work, and where it goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import TypeAdapter, ValidationError
from web3.contract.contract import ContractFunction

from contracts.amounts import format_amount, parse_amount, parse_positive
from contracts.chain.client import Chain
from contracts.chain.sending.fees import format_ether
from contracts.chain.sending.sender import Sender
from contracts.cli.output import Output, OutputOption, PlainConsole, console, print_whole, say
from contracts.errors import UserError
from contracts.program.progress_bar import watching
from contracts.strict_json import write_json
from contracts.types import Address
from contracts.wallet import keys
from worker.agent.earnings import Earning, EarningsReader, as_json, total, write_csv
from worker.agent.sweep import find_sweep, one_mover, stake_needed, sweep_calls
from worker.cli.options import DryRun, Key, Yes, ask_to_go_on, columns, open_chain
from worker.lease.folder import Store
from worker.settings import MoneyRules, provider_settings_path, read_provider_settings

Steps = list[tuple[str, ContractFunction]]


def earnings(
    key: Key = None,
    by: Annotated[Literal["lease", "day"], typer.Option(help="One row for each of them")] = "lease",
    csv: Annotated[Path | None, typer.Option(help="Write the rows to this file", dir_okay=False)] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what leases have paid, penalties, gas and the rest, from the chain. Needs no password."""
    chain, name = open_chain(key)
    with watching(PlainConsole(stderr=True)) as watch:
        book = EarningsReader(chain, keys.address(name), watch)
        rows = book.by_day() if by == "day" else book.by_lease()
    if csv is not None:
        try:
            with csv.open("w", encoding="utf-8", newline="") as file:
                write_csv(rows, file)
        except OSError as error:
            raise UserError(f"can't write {csv}: {error.strerror}") from error
    if output is Output.JSON:
        unit = {"token": chain.symbol, "decimals": chain.decimals}
        print(write_json(unit | {"rows": [as_json(row) for row in rows], "total": _total_json(rows)}, indent=2))
    elif csv is not None:
        say(f"wrote {len(rows)} rows to {csv}")
    else:
        _show_earnings(chain, rows, by)


def withdraw(
    amount: Annotated[str, typer.Argument(help="Whole tokens, such as 12.5, or `all`", metavar="AMOUNT|all")],
    to: Annotated[str, typer.Option(help="Address that gets them")],
    key: Key = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="Cancel the standing Ask first; the stake may then be withdrawn, too")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Move free tokens out of the escrow. What the Ask needs as stake stays, unless it ends with --stop."""
    chain, name = open_chain(key)
    target = _address(to, "--to")
    moves = Moves(chain, name, dry_run=dry_run, yes=yes, output=output)
    moves.carry_out(lambda: _withdrawal(chain, name, amount, target, stop))


def _withdrawal(chain: Chain, name: str, amount: str, target: str, stop: bool) -> Steps:
    """Raises UserError if there is not so much, or the Ask needs it."""
    account = chain.account(keys.address(name))
    kept = 0 if stop else _stake(name)
    there = max(0, account.free - kept)
    wanted = there if amount == "all" else parse_positive(amount, chain.decimals)
    if wanted > there or not wanted:
        show = chain.format_amount
        raise UserError(
            f"{name} has {show(account.free)} free in the escrow"
            + (f", of which the Ask needs {show(kept)}" if kept else "")
            + (f": {show(wanted - there)} short of {show(wanted)}" if wanted else ": nothing to move"),
            "what leases hold becomes free when they end" + (", and --stop ends the Ask" if kept else ""),
        )
    steps = [(f"withdraw {chain.format_amount(wanted)} to {target}", chain.withdraw(target, wanted))]
    if stop:
        _check_stopped(name)
        steps.insert(0, ("cancel all standing Asks", chain.raise_page(account.page + 1)))
    return steps


def sweep(
    key: Key = None,
    above: Annotated[
        str | None, typer.Option(help="Whole tokens that may stay; default: `sweep_above`", metavar="TOKENS")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Cold address; default: `sweep_to`")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send what this key need not hold to a cold address. The stake that its Ask needs always stays.

    With `sweep_above` and `sweep_to` in provider.toml the running agent does this by itself.
    """
    chain, name = open_chain(key)
    limit, target = _sweep_to_where(chain, name, above, to)
    moves = Moves(chain, name, dry_run=dry_run, yes=yes, output=output)

    def plan() -> Steps:
        return sweep_calls(chain, find_sweep(chain, moves.address, limit, _stake(name)), target)

    if not plan() and output is Output.TABLE:
        say(f"nothing to send: {name} holds no more than {chain.format_amount(max(limit, _stake(name)))}")
        return
    moves.carry_out(plan)


def _sweep_to_where(chain: Chain, name: str, above: str | None, to: str | None) -> tuple[int, str]:
    """How much may stay, and the cold address: as given, or as provider.toml says."""
    money = read_provider_settings(name).money if provider_settings_path(name).exists() else MoneyRules()
    limit = parse_amount(above, chain.decimals) if above is not None else money.sweep_above
    target = _address(to, "--to") if to is not None else money.sweep_to
    if limit is None or target is None:
        raise UserError(
            "how much may stay, and where to with the rest?",
            f"give --above and --to, or set sweep_above and sweep_to in {provider_settings_path(name)}",
        )
    if target == keys.address(name):
        raise UserError(
            f"{target} is the key '{name}' itself", "a cold address is one whose key is not on this machine"
        )
    return limit, target


def _stake(name: str) -> int:
    """What must stay free for the key's Ask; nothing for a key that offers nothing."""
    return stake_needed(read_provider_settings(name)) if provider_settings_path(name).exists() else 0


def _check_stopped(name: str) -> None:
    """Raises UserError while the agent runs: it would post the next Ask at once."""
    if Store(name).is_running():
        raise UserError(f"the agent of '{name}' is running, and would post a new Ask", "stop it first")


class Moves:
    """What a command sends for a key: shown, agreed to, sent. A dry run signs nothing, and needs no password."""

    def __init__(self, chain: Chain, name: str, *, dry_run: bool, yes: bool, output: Output) -> None:
        """Whatever the key has sent before is counted from now on: nothing is to be moved twice."""
        self.address = keys.address(name)
        self._chain, self._yes, self._output = chain, yes, output
        self._sender = None if dry_run else Sender(chain, keys.load(name))
        if self._sender:
            self._sender.settle()

    def carry_out(self, plan: Callable[[], Steps]) -> None:
        """`plan` is asked again before the first transaction, which others may have come before."""
        steps = plan()
        if self._sender is None:
            self._show([_estimate(self._chain, self.address, *step) for step in steps])
            return
        if not self._yes:
            for what, _ in steps:
                say(what)
            ask_to_go_on()
        with one_mover(self._chain, self.address):
            _check_still(self._sender, plan, steps)
            done = [_send(self._sender, *step) for step in steps]
        self._show(done)

    def _show(self, done: list[dict[str, Any]]) -> None:
        if self._output is Output.JSON:
            print(write_json({"dry_run": self._sender is None, "transactions": done}, indent=2))
            return
        for row in done:
            if self._sender is None:
                say(f"would {row['what']}; gas: about {format_ether(int(row['cost_wei']))} ETH")
            else:
                say(f"{row['what']}: done in block {row['block']}, {row['transaction']}")
        if self._sender is None:
            say("nothing was sent")


def _check_still(sender: Sender, plan: Callable[[], Steps], steps: Steps) -> None:
    """Raises UserError if the agent has moved tokens, or a lease taken them, since somebody was asked."""
    sender.settle()
    if [what for what, _ in plan()] != [what for what, _ in steps]:
        raise UserError("what this key holds has changed meanwhile; nothing was sent", "look again, with --dry-run")


def _estimate(chain: Chain, address: str, what: str, call: ContractFunction) -> dict[str, Any]:
    chain.dry_run(call, address)
    gas = call.estimate_gas({"from": chain.w3.to_checksum_address(address)})
    return {"what": what, "cost_wei": str(gas * int(chain.w3.eth.gas_price))}


def _send(sender: Sender, what: str, call: ContractFunction) -> dict[str, Any]:
    receipt = sender.send(call)
    return {
        "what": what,
        "transaction": receipt["transactionHash"].to_0x_hex(),
        "block": receipt["blockNumber"],
        "cost_wei": str(receipt["gasUsed"] * int(receipt["effectiveGasPrice"])),
    }


def _total_json(rows: list[Earning]) -> dict[str, Any]:
    return {name: str(value) for name, value in total(rows).items()}


def _show_earnings(chain: Chain, rows: list[Earning], by: str) -> None:
    ids = () if by == "day" else ("lease", "job")
    told = ("verdict",) if any(row.verdict for row in rows) else ()
    names = ("day", *ids, "checkpoints", "paid", "penalties", "net", "gas", "final", *told)

    def shown(values: dict[str, Any]) -> dict[str, str]:
        money = {name: format_amount(int(values[name]), chain.decimals) for name in ("paid", "penalties", "net")}
        gas = format_ether(int(values["gas_wei"]))
        ids = {name: str(values.get(name, ""))[:10] for name in ("day", "lease", "job")}
        return ids | money | {"gas": gas, "checkpoints": str(values["checkpoints"]), "final": values.get("final", ""),
                            "verdict": values.get("verdict", "")}  # fmt: skip

    table = [shown(vars(row) | {"net": row.net, "final": "yes" if row.final else "not yet"}) for row in rows]
    print_whole(console, columns(names, [*table, shown({"day": "total", **total(rows)})]))
    say(f"tokens: {chain.symbol}; gas in ETH. What is not final yet, a reorganisation of the chain may still take back")


def _address(text: str, option: str) -> str:
    try:
        checked: str = TypeAdapter(Address).validate_python(text)
        return checked
    except ValidationError as error:
        raise UserError(
            f"{option}: '{text}' is not an address", "0x and 40 hex digits; mixed case must be its checksum"
        ) from error
