"""Audits: what they find, what a lie brings, and what they cost. The figures are told in `_audit_lives`."""

from tests.bench import report
from tests.bench._audit_lives import figures


def main(json: bool) -> None:
    report(figures(), json)
