"""Replays by other providers: who is drawn, and the Bid for it. Each is a job like any other, paid by the approver."""

import time
from dataclasses import dataclass

import structlog
from eth_account.signers.local import LocalAccount

from contracts.api.bodies import BidIn
from contracts.api.client import MarketClient
from contracts.api.info import Info
from contracts.api.offers import OffersIn
from contracts.api.quotes import QuoteIn
from contracts.audits.auditors import AuditorOffer, draw_auditor, highest_price
from contracts.audits.clocks import replay_patience
from contracts.audits.events import AskReplay
from contracts.audits.replays import replay_of
from contracts.chain.client import Chain
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.job.spec import JobSpec
from contracts.orders import FAILURES, Bid
from contracts.types import to_hex
from market.approver.auditing.history import ReplayOrdered
from market.approver.auditing.lease_audit import LeaseAudit
from market.approver.job_keys import JobKeys

AFTER = 30  # seconds that a Bid is good for beyond the time in which it is waited for

log = structlog.get_logger()


class ReserveShort(UserError):
    """The approver's account in the escrow can't pay another replay."""


@dataclass(frozen=True)
class _Fits:
    offer: AuditorOffer
    seconds: float  # that it takes by its own word: its maker's could make honest auditors seem to stall
    is_free: bool  # it could begin now


class ReplayBids:
    def __init__(
        self,
        market: MarketClient,
        chain: Chain,
        key: LocalAccount,
        sender: Sender,
        job_keys: JobKeys,
        price_most: int | None = None,
    ) -> None:
        """`price_most`: of a replay, in token units, beside the fee; None: only what the job offers bounds it."""
        self._market, self._chain, self._key, self._sender, self._job_keys = market, chain, key, sender, job_keys
        self._price_most = price_most

    def order(self, audit: LeaseAudit, asked: AskReplay, info: Info) -> ReplayOrdered | None:
        """A Bid for whoever is drawn; nothing is posted yet. None: nobody who fits is on offer. Raises ReserveShort.

        Where all work, one of them is drawn: its next epoch is as soon as somebody else could have it, and jobs that
        wait, too, would have it first.
        """
        claim, bid = audit.taken(asked.n), audit.lease.out.bid
        offered = bid.max_price - bid.fee
        most = highest_price(offered)
        limit = info.fee + (most if self._price_most is None else min(most, self._price_most))
        free = self._chain.account(self._key.address).free
        tip = bid.start_tip if asked.n == 1 else audit.tip_at(asked.n - 1)
        assert tip is not None  # what is drawn was claimed, and all before it
        numerics = claim.checkpoint.numerics

        def spec_for(auditor: str) -> JobSpec:
            return replay_of(audit.lease.out.spec, asked.n, numerics, auditor)

        def draw(most: int) -> "tuple[str, float] | None":
            offers = self._offers(audit, spec_for(self._key.address), tip, most, info) if most > info.fee else []
            return _drawn(audit, asked, offers, offered)

        found = draw(min(limit, free))
        if found is None and free < limit and draw(limit):
            raise ReserveShort(
                f"a replay of checkpoint {asked.n} may cost {self._chain.format_amount(limit)}, and "
                f"{self._key.address} has {self._chain.format_amount(free)} free in the escrow, too little",
                "deposit for it; see replay_reserve in docs/audits.md",
            )
        if found is None:
            return None
        auditor, likely = found
        spec = spec_for(auditor)
        patience = replay_patience(audit.seconds(asked.n), info.epoch_seconds, likely)
        until = time.time() + patience
        replay = Bid(
            client=self._key.address,
            matcher=info.matcher,
            approver=self._key.address,
            job=to_hex(spec.job_hash()),
            rules=bid.rules,
            start_tip=tip,
            checkpoints=1,
            units=bid.units,
            max_price=min(limit, free),
            fee=info.fee,
            stake=bid.stake,
            valid_until=int(max(until, self._chain.now() + patience)) + AFTER,
            nonce=self._nonce(),
        )
        signature = replay.sign(self._chain.domain, self._key)
        name = f"replay of {audit.lease.out.job[:10]} {asked.n}"
        body = BidIn(bid=replay, signature=signature, spec=spec, name=name)
        if spec.sealed:  # the same ciphertexts, and their key for ourselves: who has the lease then gets it from us
            grant = self._job_keys.own_grant(replay.digest(self._chain.domain), audit.lease.event.terms.parties)
            files = self._market.job(audit.lease.out.job).sealed_files
            body = body.model_copy(update={"sealed_files": files, "grants": [grant]})
        return ReplayOrdered(asked.n, auditor, body, until)

    def post(self, ordered: ReplayOrdered) -> None:
        """The same again changes nothing."""
        self._market.post_bid(ordered.body)

    def has_failed(self, job: str, auditor: str) -> bool:
        """Whether the auditor says that the recipe fails."""
        leases = self._market.job(job).leases
        return any(lease.provider == auditor and lease.stops in FAILURES for lease in leases)

    def _offers(self, audit: LeaseAudit, spec: JobSpec, tip: str, limit: int, info: Info) -> list["_Fits"]:
        """Those at no more than the price that replays are capped at; of a sealed job those with its client's grant."""
        bid = audit.lease.out.bid
        names = [rule_set.name for rule_set in info.rules if rule_set.hash == bid.rules]
        if not names:
            return []  # the market offers these rules no more: no Ask is under them
        anybody = spec.model_copy(update={"resources": spec.resources.model_copy(update={"providers": ()})})
        asked = QuoteIn(
            client=self._key.address, spec=anybody, units=bid.units, rules=names[0], max_price=limit, stake=bid.stake,
            start_tip=tip,
        )  # fmt: skip
        offers = self._market.offers(OffersIn(job=asked, rules=names[0]))
        fit = [(one, one.job) for one in offers if one.job is not None and one.job.reason is None]
        if spec.sealed:
            parties = audit.lease.event.terms.parties
            fit = [(one, job) for one, job in fit if self._job_keys.has_let(parties, one.provider)]
        if not fit:
            return []
        accounts = self._chain.accounts([one.provider for one, _ in fit])
        return [  # an Ask may name any stake while its provider works: what it could not lock weighs nothing
            _Fits(
                AuditorOffer(one.provider, max(1, min(one.max_stake, account.free)), job.lowest_limit - info.fee),
                3600 * bid.units / one.units_per_hour,
                one.free,
            )
            for (one, job), account in zip(fit, accounts, strict=True)
        ]

    def _nonce(self) -> int:
        account = self._market.account(self._key.address)
        if account.next_nonce is None:
            self._sender.send(self._chain.raise_page(account.page + 1), key=f"page {account.page + 1}")
            log.info("approver.page_raised", page=account.page + 1)
            raise UserError("all nonces of the approver's page are used up; the next page begins", "it goes on itself")
        return account.next_nonce


def _drawn(audit: LeaseAudit, asked: AskReplay, offers: list[_Fits], offered: int) -> tuple[str, float] | None:
    """An auditor, and how many seconds it takes by its own word. One of those that are free; where all work, of all."""
    idle, everybody = [one.offer for one in offers if one.is_free], [one.offer for one in offers]
    for some in (idle, everybody):
        auditor = draw_auditor(audit.terms.secret, audit.id, asked.n, asked.turn, some, offered, asked.excluded)
        if auditor is not None:
            return auditor, max(one.seconds for one in offers if one.offer.provider == auditor)
    return None
