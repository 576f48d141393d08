"""`gpumarket wallet`: keys, and tokens in and out of the escrow. Amounts are whole tokens as decimals."""

import sys
from typing import Annotated, Any, NamedTuple

import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table
from web3.contract.contract import ContractFunction
from web3.exceptions import ContractLogicError
from web3.types import RPCEndpoint

from contracts.amounts import format_amount, parse_positive
from contracts.chain.client import Chain, connect
from contracts.chain.deposits import deposit_steps
from contracts.chain.devnet import devnet
from contracts.chain.sending.fees import format_ether
from contracts.chain.sending.sender import Sender
from contracts.cli.dry_run import not_sent, tell_not_sent
from contracts.cli.output import Output, PlainConsole, print_whole
from contracts.errors import UserError
from contracts.settings import Settings, load_settings
from contracts.strict_json import write_json
from contracts.types import Address
from contracts.wallet import encryption_keys, keys

FAUCET_ETHER = 10

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Make and use encrypted keys."
)


KeyOption = Annotated[str | None, typer.Option("--key", help="Which key. Not needed if there is only one.")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="As a table, or as JSON for programs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen and its cost; send nothing.")]
Amount = Annotated[str, typer.Argument(help="Whole tokens, such as 12.5", metavar="AMOUNT")]


class WalletStep(NamedTuple):
    """One transaction of a command. With a key, a command that was killed is gone on with when it is given again."""

    what: str
    call: ContractFunction
    key: str | None = None


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What to call it: letters, digits, '-', '_'.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a new key, encrypted with a password."""
    address = keys.create(name)
    _show([{"name": name, "address": address}], output)


@app.command()
def passwd(
    name: Annotated[str, typer.Argument(help="Which key.", show_default=False)],
    output: OutputOption = Output.TABLE,
) -> None:
    """Change a key's password, and that of its encryption key. Old copies of the files open with the old one still."""
    address = keys.address(name)
    old = keys.read_password(f"Password for key '{name}'")
    keys.load(name, old)  # wrong? then no need to think of a new one
    new = keys.read_password(f"New password for key '{name}'", confirm=True, variable="GPUMARKET_NEW_PASSWORD")
    encryption_keys.reencrypt(name, old, new)
    keys.change_password(name, old, new)
    _show([{"name": name, "address": address}], output)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="Which key; all of them without it.", show_default=False)] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show keys with what they hold. Needs no password."""
    found = {name: keys.address(name)} if name else keys.list_keys()
    if not found:
        raise UserError("there is no key yet", "make one: gpumarket wallet new NAME")
    settings = load_settings()
    if settings.escrow is None:
        typer.echo("no chain is set, so there are no balances to show (`gpumarket devnet` starts one)", err=True)
        _show([{"name": name, "address": address} for name, address in found.items()], output)
        return
    chain = connect(settings)
    _show([_balances(chain, name, address) for name, address in found.items()], output)


@app.command()
def address(
    name: Annotated[str, typer.Argument(help="Which key.", show_default=False)],
    output: OutputOption = Output.TABLE,
) -> None:
    """Print a key's address and nothing else, for other commands. Needs no password and no chain."""
    found = keys.address(name)
    typer.echo(write_json({"name": name, "address": found}) if output is Output.JSON else found)


@app.command()
def deposit(
    amount: Amount, key: KeyOption = None, dry_run: DryRun = False, output: OutputOption = Output.TABLE
) -> None:
    """Move tokens into the escrow, where orders can be paid from."""
    chain, name = _open(key)
    wanted = parse_positive(amount, chain.decimals)
    address = keys.address(name)
    held = chain.token_balance(address)
    # Not even what an earlier command has left to send leaves in a dry run.
    sender, intent = Sender(chain, keys.load(name), allowed=lambda: not dry_run), f"wallet deposit {wanted}"
    if held < wanted and not sender.knows(intent):
        raise UserError(
            f"{name} holds {chain.format_amount(held)}, {chain.format_amount(wanted - held)} short of "
            f"{chain.format_amount(wanted)}",
            f"send tokens to {address}; on a devnet: gpumarket wallet faucet --key {name}",
        )
    _carry_out(sender, _deposit_steps(sender, wanted, intent), wanted, dry_run, output)


@app.command()
def withdraw(
    amount: Amount,
    to: Annotated[str | None, typer.Option(help="Address that gets them; the key's own without it.")] = None,
    key: KeyOption = None,
    dry_run: DryRun = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Move free tokens out of the escrow."""
    chain, name = _open(key)
    wanted = parse_positive(amount, chain.decimals)
    address = keys.address(name)
    target = parse_address(to) if to else address
    free = chain.account(address).free
    sender = Sender(chain, keys.load(name), allowed=lambda: not dry_run)
    intent = f"wallet withdraw {wanted} {target}"
    if free < wanted and not sender.knows(intent):
        raise UserError(
            f"{name} has {chain.format_amount(free)} free in the escrow, {chain.format_amount(wanted - free)} short of "
            f"{chain.format_amount(wanted)}",
            "what leases hold becomes free when they end",
        )
    steps = [WalletStep(f"withdraw {chain.format_amount(wanted)} to {target}", chain.withdraw(target, wanted), intent)]
    _carry_out(sender, steps, wanted, dry_run, output)


@app.command()
def faucet(
    amount: Amount = "1000", key: KeyOption = None, dry_run: DryRun = False, output: OutputOption = Output.TABLE
) -> None:
    """Get play tokens and gas money. On devnets only. Needs no password."""
    chain, name = _open(key)
    version = chain.w3.client_version
    if not version.startswith("anvil/"):
        raise UserError(
            f"there is no faucet here: the node is {version}, not a devnet's anvil",
            "start one with `gpumarket devnet`; on other chains tokens must be sent to you",
        )
    address = keys.address(name)
    wanted = parse_positive(amount, chain.decimals)
    # Anyone may call the faucet, so a devnet account does: a new key has no gas money yet.
    sender = Sender(chain, devnet.accounts()[-1])
    call = chain.faucet(address, wanted)
    try:
        chain.dry_run(call, sender.address)
    except ContractLogicError as error:
        raise UserError(f"the token {chain.token.address} has no faucet", "this is not a devnet's token") from error
    if not dry_run and chain.w3.eth.get_balance(chain.w3.to_checksum_address(address)) < FAUCET_ETHER * 10**18:
        chain.w3.provider.make_request(RPCEndpoint("anvil_setBalance"), [address, hex(FAUCET_ETHER * 10**18)])
    _carry_out(sender, [WalletStep(f"give {chain.format_amount(wanted)} to {address}", call)], wanted, dry_run, output)


def _open(key: str | None) -> tuple[Chain, str]:
    settings: Settings = load_settings(key=key)
    name = keys.choose(settings.key)
    return connect(settings), name


def _deposit_steps(sender: Sender, amount: int, intent: str) -> list[WalletStep]:
    chain = sender.chain
    if sender.knows(intent):  # what it named before is what counts
        what = f"deposit {chain.format_amount(amount)} for {sender.address}"
        return [WalletStep(what, chain.deposit(sender.address, amount), intent)]
    *before, last = deposit_steps(sender, amount)
    return [*(WalletStep(*step) for step in before), WalletStep(*last, intent)]


def _carry_out(sender: Sender, steps: list[WalletStep], amount: int, dry_run: bool, output: Output) -> None:
    if dry_run:
        done = not_sent(sender, [(step.what, step.call) for step in steps])
    else:
        done = [_send(sender, step) for step in steps]
    if output is Output.JSON:
        print(write_json({"amount": str(amount), "dry_run": dry_run, "transactions": done}, indent=2))
    else:
        _tell(done, dry_run)
    for step in steps:
        if step.key is not None and not dry_run:  # told: the same command means another transaction from now on
            sender.forget(step.key)


def _tell(done: list[dict[str, Any]], dry_run: bool) -> None:
    if dry_run:
        tell_not_sent(done)
        typer.echo("nothing was sent")
        return
    for row in done:
        once = " (an interrupted command had sent it)" if row["resumed"] else ""
        typer.echo(f"{row['what']}: done in block {row['block']}, {row['transaction']}{once}")


def _send(sender: Sender, step: WalletStep) -> dict[str, Any]:
    resumed = step.key is not None and sender.knows(step.key)
    receipt = sender.send(step.call, key=step.key)
    cost = receipt["gasUsed"] * receipt["effectiveGasPrice"]
    return {
        "what": step.what,
        "transaction": receipt["transactionHash"].to_0x_hex(),
        "block": receipt["blockNumber"],
        "cost_wei": str(cost),
        "resumed": resumed,
    }


def _balances(chain: Chain, name: str, address: str) -> dict[str, str]:
    account = chain.account(address)
    wei = chain.w3.eth.get_balance(chain.w3.to_checksum_address(address))
    return {
        "name": name,
        "address": address,
        "held": format_amount(chain.token_balance(address), chain.decimals),
        "free": format_amount(account.free, chain.decimals),
        "token": chain.symbol,
        "gas_ether": format_ether(wei),
        "active_leases": str(account.active),
        "page": str(account.page),
    }


def _show(rows: list[dict[str, str]], output: Output) -> None:
    if output is Output.JSON:
        print(write_json(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*row.values())
    print_whole(PlainConsole(file=sys.stdout), table)


def parse_address(text: str) -> str:
    try:
        checked: str = TypeAdapter(Address).validate_python(text)
        return checked
    except ValidationError as error:
        raise UserError(
            f"'{text}' is not an address", "0x and 40 hex digits; mixed case must be its checksum"
        ) from error
