"""Listens for the approver's word on a lease, in a thread: neither training nor the chain's clock waits for it."""

import threading

import structlog

from contracts.api.auditing.notes import check_note
from contracts.api.bodies import ApprovalIn, LeaseOut, RejectionIn
from contracts.api.client import MarketClient
from contracts.errors import UserError
from contracts.program.logs import Trouble
from worker.lease.folder import LeaseFolder
from worker.lease.tools import LeaseTools


class Approvals(threading.Thread):
    """Asks the market every `poll` seconds while a word is due. What is proven to be the approver's is kept."""

    def __init__(self, folder: LeaseFolder, tools: LeaseTools, market: MarketClient, poll: float) -> None:
        super().__init__(name=f"approvals {folder.lease[:10]}", daemon=True)
        self._folder, self._tools, self._market, self._poll = folder, tools, market, poll
        self._log = structlog.get_logger().bind(lease=folder.lease, job=folder.file.parties.bid)
        self._trouble = Trouble(self._log)
        self._closed = threading.Event()
        self.other: ApprovalIn | None = None  # the approver's word, but on another tip than is here

    def close(self) -> None:
        self._closed.set()

    def run(self) -> None:
        while not self._closed.wait(self._poll):
            try:
                if self._folder.file.awaits_commitment:
                    self._take_commitment()
                if self._is_due():
                    self.take(self._market.lease(self._folder.lease))
                    self._trouble.over("market")
            except UserError as error:
                self._trouble.at("market", error.message)
            except Exception:  # nothing that the market answers may end this thread
                self._log.exception("market.crashed")

    def _is_due(self) -> bool:
        file = self._folder.file
        return file.made > file.approved or file.goal != "training"

    def _take_commitment(self) -> None:
        """Keeps what the approver can be held to. It is ours to have before we claim anything."""
        file = self._folder.file
        for note in self._market.audit_notes(lease=self._folder.lease):
            if note.note.kind != "commitment":
                continue
            problem = check_note(note, self._tools.domain, file.parties.approver)
            if problem is None and note.note.lease != self._folder.lease:
                problem = f"note {note.id} is of the lease {note.note.lease}"
            if problem is None:
                self._folder.update(commitment=note)
                self._log.info("lease.commitment", content=note.note.content)
                self._tools.wake()
                return
            self._trouble.at("commitment", f"the market shows a commitment that is none: {problem}")

    def take(self, said: LeaseOut) -> None:
        """Takes over the newest Approval or Rejection in the market's answer."""
        before = self._folder.file
        if said.approval is not None:
            self._take_approval(said.approval)
        if said.rejection is not None and before.rejected is None:
            self._take_rejection(said.rejection)
        if self._folder.file != before or self.other is not None:
            self._tools.wake()

    def _take_approval(self, said: ApprovalIn) -> None:
        file, approval = self._folder.file, said.approval
        old = file.approval.approval if file.approval else None
        if old is not None and (approval.n, approval.last) <= (old.n, old.last):
            return
        signer = approval.signer(self._tools.domain, said.signature)
        if approval.lease != self._folder.lease or signer != file.parties.approver:
            problem = f"signed by {signer} for lease {approval.lease}, where {file.parties.approver} approves"
        elif not self._is_ours(approval.n, approval.tip):
            self.other = said
            problem = f"for tip {approval.tip}, which is not that of our checkpoint {approval.n}"
        else:
            self.other = None
            self._folder.update(approval=said)
            self._log.info("checkpoint.approved", n=approval.n, last=approval.last)
            return
        self._trouble.at("approval", f"the market shows an Approval of {approval.n} {problem}")

    def _take_rejection(self, said: RejectionIn) -> None:
        rejection = said.rejection
        signer = rejection.signer(self._tools.domain, said.signature)
        if rejection.lease != self._folder.lease or signer != self._folder.file.parties.approver:
            self._trouble.at("rejection", f"the market shows a Rejection of {rejection.n} signed by {signer}")
        elif self._is_ours(rejection.n, rejection.tip):  # else of one that has been made anew since
            self._log.error("checkpoint.rejected", n=rejection.n, reason=rejection.reason)
            self._folder.update(rejected=rejection.n, reason=rejection.reason)

    def _is_ours(self, n: int, tip: str) -> bool:
        return self._folder.knows_tip(n) and self._folder.tip(n) == tip
