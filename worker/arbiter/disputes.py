"""The questions that wait for an arbiter's word, as the chain has them. Nothing is kept: a restart reads them anew."""

from dataclasses import dataclass

import structlog

from contracts.audits.ruling import Ground
from contracts.chain.arbiter import OperatorArbiter, Question
from contracts.chain.events import Opened
from contracts.chain.lookup import opened, rules_of
from contracts.errors import UserError
from contracts.finality import KEPT_BLOCKS
from contracts.orders import Rules
from contracts.program.logs import Trouble

log = structlog.get_logger()


@dataclass(frozen=True)
class DisputedStretch:
    """A challenge on which nobody has ruled yet."""

    question: Question
    opening: Opened  # of the lease
    rules: Rules
    since: int  # UTC seconds

    @property
    def id(self) -> str:
        return self.question.id

    @property
    def until(self) -> int:
        """UTC seconds; from then on no word counts as silence."""
        return self.since + self.rules.arbiter_timeout


class Docket:
    """Of one contract. An id names one question of one claimed chain: no reorganisation can change what is asked."""

    def __init__(self, arbiter: OperatorArbiter) -> None:
        self._arbiter, self._chain = arbiter, arbiter.chain
        self._questions: dict[str, Question] = {}
        self._leases: dict[str, tuple[Opened, Rules]] = {}
        self._next = self._chain.settings.deploy_block
        self._trouble = Trouble(log)

    def open(self) -> list[DisputedStretch]:
        """Those of withheld bytes, which are quickly looked at, first; then those whose time ends first."""
        head = int(self._chain.w3.eth.block_number)
        # What was read of the newest blocks may have gone since, and others have come.
        first = max(self._chain.settings.deploy_block, self._next - KEPT_BLOCKS)
        self._questions |= {one.id: one for one in self._arbiter.questions(first, head)}
        self._next = head + 1
        found = []
        for question in list(self._questions.values()):
            try:
                dispute = self._waiting(question)
            except UserError as error:  # of this one only
                self._trouble.at(f"arbiter.{question.id}", error.message)
                continue
            if dispute is None:
                del self._questions[question.id]
            else:
                found.append(dispute)
        self._leases = {dispute.question.lease: (dispute.opening, dispute.rules) for dispute in found}
        return sorted(found, key=lambda one: (one.question.ground != Ground.WITHHELD, one.until))

    def is_waiting(self, dispute: DisputedStretch) -> bool:
        """Whether it still wants a word: else it was withdrawn, or resolved, or ruled on."""
        open_dispute = self._chain.dispute(dispute.question.lease)
        return open_dispute is not None and open_dispute.id == dispute.id and not self._arbiter.verdict(dispute.id)

    def _waiting(self, question: Question) -> DisputedStretch | None:
        open_dispute = self._chain.dispute(question.lease)
        if open_dispute is None or open_dispute.id != question.id or self._arbiter.verdict(question.id):
            return None
        if question.lease not in self._leases:
            opening = opened(self._chain, question.lease)
            self._leases[question.lease] = (opening, rules_of(self._chain, opening))
        opening, rules = self._leases[question.lease]
        return DisputedStretch(question, opening, rules, self._chain.state(question.lease).t)
