"""`gpumarket provider estimate`: what this machine would earn, before anything is registered or deposited."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from contracts.amounts import format_amount, parse_amount, parse_positive
from contracts.api.client import MarketClient
from contracts.chain.client import Chain, connect
from contracts.chain.sending.fees import format_ether
from contracts.cli.output import Output, OutputOption, print_whole, say
from contracts.cli.output import console as terminal
from contracts.errors import UserError
from contracts.settings import load_settings
from contracts.strict_json import write_json
from contracts.types import SECONDS_PER_HOUR
from worker.agent.asks import gas_today
from worker.agent.gas import lease_gas
from worker.cli.options import facts
from worker.lease.schedule import LeaseTiming
from worker.machine.hardware import Machine, Processor, probe
from worker.onboarding import register as registration
from worker.onboarding.busy import check_room_to_measure
from worker.onboarding.prospects import DAY, MONTH, Demand, Hour, Suggestion, power_cost, read_demand
from worker.settings import MoneyRules
from worker.training.environment import Device


def estimate(
    market: Annotated[str | None, typer.Option(help="URL of the market")] = None,
    price: Annotated[
        str | None, typer.Option(help="Whole tokens per hour; default: what the market suggests", metavar="TOKENS")
    ] = None,
    power_price: Annotated[
        str | None, typer.Option(help="What a kilowatt-hour costs, in whole tokens", metavar="TOKENS")
    ] = None,
    watts: Annotated[
        float | None, typer.Option(min=0, help="Power under load; default: the GPUs' limits as their driver tells")
    ] = None,
    tokens_per_eth: Annotated[
        str | None, typer.Option(help="What an ETH is worth in whole tokens, to count gas", metavar="TOKENS")
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(help="GPUs to sell together, such as 0,1; `none`: the CPU. Default: all")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads to train with")] = 1,
    measure_seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure, if need be")] = 10,
    units_per_hour: Annotated[
        int | None, typer.Option(min=1, help="Work units per hour, instead of measuring them")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell what this machine would earn here: by what such machines get, how busy they are, power and gas.

    Registers nothing, and sends nothing but questions.
    """
    config = load_settings(market_url=market)
    chain, url = connect(config), config.require("market_url")
    machine = probe()
    names = registration.choose_gpus(machine, gpus)
    sold = [found for name in names if (found := machine.gpu(name))]
    device = sold[0].model if sold else machine.cpu
    with MarketClient(url) as client:
        info, demand = client.info(), read_demand(client, device, len(sold))
    timeout = registration.choose_rules(info, None).rules.checkpoint_timeout
    # Only the price of as much work elsewhere takes this machine's speed.
    needs_speed = price is None and bool(demand.offers) and not demand.alike and not demand.cleared
    if needs_speed and units_per_hour is None:
        check_room_to_measure("cuda" if sold else "cpu")
        with terminal.status("measuring the training speed"):
            device_kind: Device = "cuda" if sold else "cpu"
            speed = registration.measured(measure_seconds, device_kind, threads, names, lambda: None)
        units_per_hour = speed.units_per_hour
    suggested = demand.suggestion(units_per_hour or 1)
    asked = parse_positive(price, chain.decimals) if price is not None else suggested and suggested.price
    if tokens_per_eth is not None:
        parse_positive(tokens_per_eth, chain.decimals)
    money = MoneyRules(tokens_per_eth=tokens_per_eth)
    hour = None
    if asked:
        hour = Hour(asked, _power(chain, machine, sold, power_price, watts), _gas(chain, money, timeout))
    told = _told(chain, demand, suggested, hour) | {
        "device": device,
        "gpus": len(sold),
        "watts": _watts(sold, watts),
        "gas_eth": format_ether(_gas_used(timeout) * gas_today(chain, money).wei),
    }
    if output is Output.JSON:
        print(write_json(told, indent=2))
        return
    print_whole(terminal, facts(_facts(chain, told), f"What {device} would earn at {url}"))
    if hour is None:
        say("nobody offers a machine here, so there is no price to compare with: give yours with --price TOKENS")


def _watts(sold: list[Processor], given: float | None) -> float | None:
    if given is not None:
        return given
    limits = [one.power_limit_watts for one in sold]
    known = [limit for limit in limits if limit is not None]
    return sum(known) if known and len(known) == len(limits) else None


def _power(
    chain: Chain, machine: Machine, sold: list[Processor], power_price: str | None, watts: float | None
) -> float | None:
    if power_price is None:
        return None
    used = _watts(sold, watts)
    if used is None:
        raise UserError(
            f"nobody tells how much power {machine.cpu if not sold else sold[0].model} draws under load",
            "give --watts, as measured at the plug",
        )
    return power_cost(used, parse_amount(power_price, chain.decimals))


def _gas(chain: Chain, money: MoneyRules, timeout: int) -> float | None:
    """Of leases of an hour each, in the token's smallest unit."""
    return gas_today(chain, money).in_tokens(_gas_used(timeout))


def _gas_used(timeout: int) -> int:
    return lease_gas(SECONDS_PER_HOUR, LeaseTiming.of(timeout).redeem_every)


def _told(chain: Chain, demand: Demand, suggested: Suggestion | None, hour: Hour | None) -> dict[str, Any]:
    """As JSON; money in whole tokens, as text."""
    share = demand.busy_share

    def span(busy: float, hours: int) -> str:
        assert hour is not None
        left = round(hour.left * busy * hours)
        return "-" * (left < 0) + format_amount(abs(left), chain.decimals)

    earns = None
    if hour is not None:
        earns = {
            "always_busy": {"hour": span(1, 1), "day": span(1, DAY), "month": span(1, MONTH)},
            "as_busy_as_others": {"hour": span(share, 1), "day": span(share, DAY), "month": span(share, MONTH)}
            if share
            else None,
        }
    return {
        "token": chain.symbol,
        "price": None if hour is None else format_amount(round(hour.pay), chain.decimals),
        "suggested_price": suggested and format_amount(suggested.price, chain.decimals),
        "source": suggested and suggested.source,
        "power": None if hour is None or hour.power is None else format_amount(round(hour.power), chain.decimals),
        "gas": None if hour is None or hour.gas is None else format_amount(round(hour.gas), chain.decimals),
        "earns": earns,
        "machines_like_it": len(demand.alike),
        "machines": len(demand.offers),
        "busy_share": share,
        "jobs_waiting": demand.waiting,
        "jobs_running": demand.running,
    }


def _facts(chain: Chain, told: Mapping[str, Any]) -> dict[str, str]:
    rows = {
        "machines here": f"{told['machines']}, of which {told['machines_like_it']} like this one",
        "jobs": f"{told['jobs_running']} running, {told['jobs_waiting']} waiting",
    }
    if told["suggested_price"]:
        rows["suggested price"] = f"{told['suggested_price']} {chain.symbol} an hour: {told['source']}"
    if told["earns"] is None:
        return rows
    rows["price"] = f"{told['price']} {chain.symbol} an hour"
    rows["power"] = f"{told['power']} an hour, {told['watts']:g} W" if told["power"] else "not counted (--power-price)"
    eth = "not counted without --tokens-per-eth"
    rows["gas"] = f"{told['gas']} an hour" if told["gas"] else f"{told['gas_eth']} ETH an hour, {eth}"
    always, like = told["earns"]["always_busy"], told["earns"]["as_busy_as_others"]
    rows["left, always busy"] = _spans(always)
    if told["busy_share"] is None:
        rows["how busy"] = "nobody can say: no machine is on offer here yet"
    elif like is None:
        rows["as busy as others"] = "nothing: no machine here has work at the moment"
    else:
        rows[f"left, {told['busy_share']:.0%} busy"] = f"{_spans(like)} (as others are now)"
    return rows


def _spans(span: Mapping[str, str]) -> str:
    return f"{span['hour']} an hour, {span['day']} a day, {span['month']} a month"
