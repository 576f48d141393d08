"""Audits: what they find, what a lie brings, and what they cost.

Each part has its figures in a module of its own, which tells them: `_replay_cost`, `_audit_lives`,
`_audit_gas`.
"""

from itertools import chain

from tests.bench import _audit_gas, _audit_lives, _replay_cost, report


def main(json: bool) -> None:
    report(chain(_replay_cost.figures(), _audit_lives.figures(), _audit_gas.figures()), json)
