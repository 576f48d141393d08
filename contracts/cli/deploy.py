"""`gpumarket deploy`: an escrow, a log of epochs and an arbiter, on any chain."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from filelock import FileLock, Timeout
from web3 import Web3

from contracts.chain.client import Bounds, open_node
from contracts.chain.deploying.checks import check_token
from contracts.chain.deploying.deployer import Deployer, DeploymentPlan
from contracts.chain.deploying.record import ARTIFACTS, Wish
from contracts.chain.devnet.devnet import DevnetTiming, rule_sets
from contracts.chain.sending.fees import format_ether
from contracts.cli.output import Output, PlainConsole, console, say
from contracts.cli.wallet import DryRun, KeyOption, OutputOption, parse_address
from contracts.errors import UserError
from contracts.settings import Settings, home, load_settings, write_config
from contracts.strict_json import write_json
from contracts.wallet import keys

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# Of the rule-sets that are written for a start, in seconds; brought within the bounds.
TIMING = DevnetTiming(window=3_600, checkpoint_timeout=7_200, arbiter_timeout=86_400, interruptible_timeout=7 * 86_400)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@app.command()
def deploy(
    chain_id: Annotated[int, typer.Option(help="Which chain it must be: the node at rpc_url is asked.", min=1)],
    token: Annotated[str | None, typer.Option(help="Address of the ERC-20 token that the escrow holds.")] = None,
    dev_token: Annotated[bool, typer.Option("--dev-token", help="A play token instead. On devnets only.")] = False,
    arbiter: Annotated[
        str | None, typer.Option(help="Address of an arbiter that is there; without it an OperatorArbiter is deployed.")
    ] = None,
    operator: Annotated[
        str | None, typer.Option(help="Who decides disputes at the OperatorArbiter; without it the deploying key.")
    ] = None,
    checkpoint_timeout: Annotated[
        str, typer.Option(help="Bounds of the rules' longest silence, seconds.", metavar="MIN:MAX")
    ] = "600:2592000",
    window: Annotated[
        str, typer.Option(help="Bounds of the rules' acceptance window, seconds.", metavar="MIN:MAX")
    ] = "600:604800",
    arbiter_timeout: Annotated[
        str, typer.Option(help="Bounds of when an arbiter counts as silent, seconds.", metavar="MIN:MAX")
    ] = "3600:2592000",
    name: Annotated[
        str | None, typer.Option(help="What to call it, among those of this home; without it chain-ID.")
    ] = None,
    key: KeyOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Send without asking.")] = False,
    dry_run: DryRun = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Put an escrow, a log of epochs and an arbiter on a chain. Run again after a crash it goes on where it was."""
    settings = load_settings(key=key, chain_id=chain_id)
    chosen = keys.choose(settings.key)
    bounds = Bounds(
        *_span("--checkpoint-timeout", checkpoint_timeout), *_span("--window", window),
        *_span("--arbiter-timeout", arbiter_timeout),
    )  # fmt: skip
    if (token is None) != dev_token:
        raise UserError("an escrow holds one token", "give --token ADDRESS, or on a devnet --dev-token")
    if arbiter is not None and operator is not None:
        raise UserError("--operator is for an OperatorArbiter, and --arbiter names another", "give one of them")
    wish = Wish(
        chain_id=chain_id,
        deployer=keys.address(chosen),
        token=parse_address(token) if token else None,
        arbiter=parse_address(arbiter) if arbiter else None,
        operator=parse_address(operator) if operator else keys.address(chosen),
        bounds=bounds,
    )
    name = name or f"chain-{chain_id}"
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} can't be a file's name", "use letters, digits, '.', '-', '_'")
    folder = home() / "deployments"
    w3 = open_node(settings)
    decimals, symbol = _token(w3, wish)
    with _only_one(folder, name):
        deployer = Deployer(w3, wish, folder / f"{name}.json", settings.max_fee)
        plan = deployer.plan()
        told = _as_json(plan, deployer, name) | {"dry_run": dry_run, "token_symbol": symbol, "token_decimals": decimals}
        if output is Output.TABLE:
            _show(plan, wish, f"{symbol}, {decimals} decimals")
        if dry_run:
            _end(told, output, ["nothing was sent"])
            return
        if plan.gas and not yes and not typer.confirm("Deploy this?", err=True):
            raise UserError("nothing was sent")
        deployer.carry_out(keys.load(chosen), (console if output is Output.TABLE else PlainConsole(stderr=True)).print)
        file = folder / f"{name}.toml"
        write_config(file, _settings(settings, deployer, decimals), f"Written by `gpumarket deploy` (--name {name}).")
    done = {one["contract"]: one for one in told["contracts"]}
    for role, made in deployer.record.contracts.items():
        done[ARTIFACTS[role]] |= {"address": made.address, "block": made.block, "transaction": _last(made.transactions)}
    lines = [
        f"settings  {file}",
        f"          copy it to {home() / 'config.toml'}, of market, clients and agents; set rpc_url for each. Its "
        "rule-sets are a start: look at them before a market offers them (docs/operations.md)",
    ]
    _end(told | {"settings": str(file)}, output, lines)


def _token(w3: Web3, wish: Wish) -> tuple[int, str]:
    if wish.token is not None:
        return check_token(w3, wish.token)
    if not w3.client_version.startswith("anvil/"):
        raise UserError(
            f"the node is {w3.client_version}, not a devnet's anvil: of a play token anyone can make as much as wanted",
            "give --token the address of the token that the escrow shall hold",
        )
    return 6, "tUSD"


def _span(option: str, text: str) -> tuple[int, int]:
    """MIN:MAX in whole seconds. Raises UserError."""
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text, re.ASCII)
    least, most = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= least <= most:
        raise UserError(f"{option} {text!r} is no span of seconds", "give MIN:MAX, such as 600:86400, both at least 1")
    return least, most


def _only_one(folder: Path, name: str) -> Any:
    lock = FileLock(folder / f".{name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"another `gpumarket deploy` is at work on '{name}'", "wait for it") from error
    except OSError as error:
        raise UserError(f"can't write in {folder}: {error}") from error


def _settings(settings: Settings, deployer: Deployer, decimals: int) -> Settings:
    """For config.toml of everybody who uses the escrow."""
    bounds, arbiter = deployer.wish.bounds, deployer.address("arbiter")
    timing = DevnetTiming(
        window=_within(TIMING.window, bounds.min_window, bounds.max_window),
        checkpoint_timeout=_within(
            TIMING.checkpoint_timeout, bounds.min_checkpoint_timeout, bounds.max_checkpoint_timeout
        ),
        arbiter_timeout=_within(TIMING.arbiter_timeout, bounds.min_arbiter_timeout, bounds.max_arbiter_timeout),
        interruptible_timeout=_within(
            TIMING.interruptible_timeout, bounds.min_checkpoint_timeout, bounds.max_checkpoint_timeout
        ),
    )
    return Settings(
        rpc_url=settings.rpc_url,
        chain_id=deployer.wish.chain_id,
        escrow=deployer.address("escrow"),
        token=deployer.address("token"),
        epoch_log=deployer.address("epoch_log"),
        arbiter=arbiter,
        deploy_block=deployer.deploy_block,
        rules=rule_sets(arbiter, timing, arbiter_fee=10**decimals),
    )


def _within(wanted: int, least: int, most: int) -> int:
    return max(least, min(wanted, most))


def _as_json(plan: DeploymentPlan, deployer: Deployer, name: str) -> dict[str, Any]:
    wish = deployer.wish
    return {
        "name": name,
        "chain_id": wish.chain_id,
        "deployer": wish.deployer,
        "token": wish.token,
        "arbiter": wish.arbiter,
        "operator": None if wish.arbiter else wish.operator,
        "bounds": wish.bounds._asdict(),
        "contracts": [
            {
                "contract": ARTIFACTS[one.role],
                "address": one.address,
                "nonce": one.nonce,
                "there": one.gas == 0,
                "gas": one.gas,
            }
            for one in plan.contracts
        ],
        "gas": plan.gas,
        "cost_wei": str(plan.cost),
        "max_cost_wei": str(plan.max_cost),
    }


def _show(plan: DeploymentPlan, wish: Wish, token: str) -> None:
    say(f"chain     {wish.chain_id}")
    say(f"key       {wish.deployer}")
    say(f"token     {wish.token or 'a play token'} ({token})")
    for one in plan.contracts:
        gas = f"{one.gas:,} gas" if one.gas else "is there"
        say(f"contract  {ARTIFACTS[one.role]} at {one.address} ({gas})")
    say(f"arbiter   {wish.arbiter or f'the OperatorArbiter, whose operator is {wish.operator}'}")
    bounds = wish.bounds
    say(f"rules may have: silence of {bounds.min_checkpoint_timeout} to {bounds.max_checkpoint_timeout} s")
    say(f"                a window of {bounds.min_window} to {bounds.max_window} s")
    say(f"                an arbiter's time of {bounds.min_arbiter_timeout} to {bounds.max_arbiter_timeout} s")
    if plan.gas:
        say(
            f"cost      {plan.gas:,} gas: {format_ether(plan.cost)} ETH at {plan.price / 1e9:.3g} gwei as of now, at "
            f"most {format_ether(plan.max_cost)}"
        )


def _last(hashes: list[str]) -> str | None:
    return hashes[-1] if hashes else None


def _end(told: dict[str, Any], output: Output, lines: list[str]) -> None:
    if output is Output.JSON:
        print(write_json(told, indent=2), file=sys.stdout)
        return
    for line in lines:
        say(line)
