"""The rule-sets of a market: those on offer, and all that it has ever offered."""

from sqlmodel import Session, select

from contracts.api.bodies import RuleSet
from contracts.chain.client import Chain
from contracts.errors import UserError
from contracts.orders import Rules
from contracts.settings import Settings
from market.store.models import RuleSetRow


def offered_rules(chain: Chain, chain_settings: Settings) -> dict[str, RuleSet]:
    """The rule-sets of config.toml. UserError if the escrow would refuse one."""
    bounds = chain.bounds()
    found = {}
    for name, rules in chain_settings.require("rules").items():
        for what, value, lowest, highest in (
            (
                "checkpointTimeout",
                rules.checkpoint_timeout,
                bounds.min_checkpoint_timeout,
                bounds.max_checkpoint_timeout,
            ),
            ("window", rules.window, bounds.min_window, bounds.max_window),
            ("arbiterTimeout", rules.arbiter_timeout, bounds.min_arbiter_timeout, bounds.max_arbiter_timeout),
        ):
            if not lowest <= value <= highest:
                raise UserError(
                    f"{what} of the rule-set '{name}' is {value} s; this escrow takes {lowest} to {highest}",
                    "correct it in config.toml",
                )
        description = (
            f"{rules.checkpoint_timeout} s from one checkpoint to the next, {rules.window} s to challenge one; "
            f"the arbiter {rules.arbiter} takes {rules.arbiter_fee} (smallest units)"
        )
        found[name] = RuleSet(name=name, hash=rules.struct_hash(), rules=rules, description=description)
    return found


def known_rules(session: Session) -> dict[str, RuleSet]:
    rows = session.exec(select(RuleSetRow)).all()
    return {row.hash: RuleSet(name=row.name, hash=row.hash, rules=Rules.model_validate(row.rules)) for row in rows}
