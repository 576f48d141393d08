"""The rule-sets of a market: those on offer, and all that it has ever offered."""

from sqlmodel import Session, select

from contracts.api.info import RuleSet
from contracts.audits.levels import BEFORE
from contracts.audits.verification import Verification
from contracts.chain.client import Chain
from contracts.errors import UserError
from contracts.orders import Rules
from contracts.settings import Settings
from market.store.models import RuleSetRow


def offered_rules(chain: Chain, chain_settings: Settings) -> dict[str, RuleSet]:
    """The rule-sets of config.toml. UserError if the escrow would refuse one, or nobody could tell what it promises."""
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
        verification = _promised(name, rules, chain_settings)
        level = verification.level if verification else "unchecked"
        description = (
            f"{level}; {rules.checkpoint_timeout} s from one checkpoint to the next, {rules.window} s to challenge "
            f"one; the arbiter {rules.arbiter} takes {rules.arbiter_fee} (smallest units)"
        )
        found[name] = RuleSet(
            name=name, hash=rules.struct_hash(), rules=rules, description=description, verification=verification
        )
    return found


def _promised(name: str, rules: Rules, chain_settings: Settings) -> Verification | None:
    """What a rule-set commits to; None for one of version 0.1, which promised nothing. Raises UserError."""
    verification = chain_settings.verification_of(name)
    if verification is None and rules.verification in BEFORE:
        return None
    if verification is None:
        raise UserError(
            f"the rule-set '{name}' commits to the verification {rules.verification}, and nobody knows its JSON",
            f'put the JSON into config.toml as verifications.{name}, or write level = "open" there in place of it',
        )
    return verification


def known_rules(session: Session) -> dict[str, RuleSet]:
    rows = session.exec(select(RuleSetRow)).all()
    return {
        row.hash: RuleSet.model_validate(
            {"name": row.name, "hash": row.hash, "rules": row.rules, "verification": row.verification}
        )
        for row in rows
    }
