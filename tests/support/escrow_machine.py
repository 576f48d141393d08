"""The escrow's machine on tiny numbers, to be searched through: docs/protocol.md, sections 4 and 5, for one Bid.

Every party may do anything at any time, but for what an honest one would not do. A checkpoint is only right or wrong,
seen from the state before it; a chain of them is a tuple of that. Time goes by in steps of one.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Honest = Literal["nobody", "provider", "client"]
Phase = Literal["none", "active", "closing", "challenged", "closed", "dead"]
Chain = tuple[bool, ...]
LIVE = ("active", "closing")
SILENT, TRUE, FALSE, VOID, UNREPRODUCIBLE = range(5)


@dataclass(frozen=True)
class Numbers:
    """Terms, in steps of time and in tokens, and what the parties have at first."""

    checkpoints: int = 3
    lease: int = 2  # checkpoints of a lease at most
    leases: int = 3
    window: int = 2
    timeout: int = 3
    arbiter_timeout: int = 2
    price: int = 10
    ask_price: int = 4
    fee: int = 1
    stake: int = 40
    arbiter_fee: int = 4
    free: tuple[int, int, int] = (60, 120, 60)  # client, provider, challenger

    @property
    def cap(self) -> int:
        """From here on time makes no difference any more."""
        return max(self.window, self.timeout, self.arbiter_timeout) + 1


class Free(NamedTuple):
    client: int
    provider: int
    challenger: int
    matcher: int = 0
    arbiter: int = 0
    burnt: int = 0

    def plus(self, **changes: int) -> "Free":
        new = self._replace(**{who: getattr(self, who) + amount for who, amount in changes.items()})
        assert min(new) >= 0, f"a balance below 0: {new}"
        return new


class State(NamedTuple):
    """Absolute indices. `chain`: what is accepted and claimed on chain, from the job's start."""

    free: Free
    phase: Phase = "none"
    start: int = 0
    end: int = 0
    settled: int = 0
    accepted: int = 0
    claimed: int = 0
    age: int = 0  # since t
    chain: Chain = ()
    signed: Chain = ()  # the provider's newest signed Claim that the chain has not seen: from `accepted` on
    by_client: bool = False
    late: bool = False
    claimed_in_closing: bool = False
    from_closing: bool = False
    k: int = 0  # the disputed checkpoint
    verdict: int = SILENT  # what the arbiter comes to say
    bond: int = 0
    lock: int = 0
    stake: int = 0
    active: int = 0
    leases: int = 0
    paid: int = 0  # checkpoints, over all leases
    earned: int = 0  # what an honest provider has claimed on chain, checkpoints

    @property
    def held(self) -> int:
        return self.lock + self.stake + self.bond


class Move(NamedTuple):
    name: str
    by: str  # anyone, provider, client, challenger, approver (or who brings what it signed), arbiter
    after: State
    truth: Chain = ()  # of what it claims, or approves


class Machine:
    """`convicts`: whether the arbiter knows what is right; else it says void, or unreproducible, or nothing."""

    def __init__(self, numbers: Numbers, honest: Honest, *, convicts: bool) -> None:
        self.n, self.honest, self.convicts = numbers, honest, convicts
        client, provider, challenger = numbers.free
        self.first = State(Free(client, provider, challenger))
        self.total = sum(self.first.free)

    # ---------------------------------------------------------------- what the calls do

    def synced(self, s: State) -> State:
        due = s.phase in LIVE and s.claimed > s.accepted and s.age >= self.n.window
        if not due:
            return s
        return self._accept(s, s.claimed, late=s.late and s.phase != "closing")

    def _accept(self, s: State, n: int, late: bool) -> State:
        """What was signed beyond that stays evidence, if it is of this chain."""
        follows = s.signed[: n - s.accepted] == s.chain[s.accepted : n]
        return s._replace(accepted=n, late=late, signed=s.signed[n - s.accepted :] if follows else ())

    def _settle(self, s: State) -> State:
        count = s.accepted - s.settled
        free = s.free.plus(provider=self.n.price * count, matcher=self.n.fee * count)
        lock = s.lock - (self.n.price + self.n.fee) * count
        return s._replace(free=free, lock=lock, settled=s.accepted, paid=s.paid + count)

    def _exit(self, s: State, **shares: int) -> State:
        """Pays what is accepted, refunds the rest of the lock; `shares` give out stake and bond."""
        s = self._settle(s)
        assert sum(shares.values()) == s.stake + s.bond, f"stake and bond are not given out exactly: {shares}"
        more = s.end < self.n.checkpoints or s.accepted < s.end
        was_active = s.phase == "active" or (s.phase == "challenged" and not s.from_closing)
        after = State(
            free=s.free.plus(client=s.lock).plus(**shares),
            phase="closed" if more and not s.by_client else "dead",
            accepted=s.accepted,
            chain=s.chain[: s.accepted],
            active=s.active - was_active,
            leases=s.leases,
            paid=s.paid,
            earned=s.earned,
        )
        assert s.lock == (self.n.price + self.n.fee) * (s.end - s.accepted), "the lock is not what is unpaid"
        return after

    def _paid_on(self, s: State) -> State:
        return self._exit(s, provider=s.stake) if s.accepted == s.end else self._settle(s)

    def _revived(self, s: State) -> State:
        phase: Phase = "closing" if s.from_closing else "active"
        return s._replace(phase=phase, from_closing=False, age=0, k=0, verdict=SILENT, bond=0)

    # ---------------------------------------------------------------- moves

    def moves(self, stored: State) -> Iterator[Move]:
        s = self.synced(stored)
        if s.phase in ("none", "closed"):
            yield from self._openings(s)
        elif s.phase in LIVE:
            yield from self._claims(s)
            yield from self._approvals(s)
            yield from self._ends(s)
            yield from self._challenges(s)
        elif s.phase == "challenged":
            yield from self._approvals_in_dispute(s)
            yield from self._verdicts(s)
        if s.phase in ("closing", "challenged") and not s.by_client:
            yield Move("end", "client", s._replace(by_client=True))

    def _openings(self, s: State) -> Iterator[Move]:
        end = min(s.accepted + self.n.lease, self.n.checkpoints)
        lock = (self.n.price + self.n.fee) * (end - s.accepted)
        free = s.free
        if s.leases < self.n.leases and free.client >= lock and free.provider >= self.n.stake and end > s.accepted:
            opened = State(
                free=free.plus(client=-lock, provider=-self.n.stake), phase="active", start=s.accepted, end=end,
                settled=s.accepted, accepted=s.accepted, claimed=s.accepted, chain=s.chain, lock=lock,
                stake=self.n.stake, active=s.active + 1, leases=s.leases + 1, paid=s.paid, earned=s.earned,
            )  # fmt: skip
            yield Move("open", "anyone", opened)
        if s.phase == "closed":
            yield Move("end", "client", s._replace(phase="dead"))

    def _claims(self, s: State) -> Iterator[Move]:
        may = s.phase == "active" or not s.claimed_in_closing
        for item in (True, False):
            if may and s.claimed < s.end:
                claimed = s._replace(
                    claimed=s.claimed + 1, chain=(*s.chain[: s.claimed], item), age=0,
                    claimed_in_closing=s.phase == "closing", earned=s.earned + (self.honest == "provider"),
                )  # fmt: skip
                yield Move("claim", "provider", claimed, (item,))
            # Signed and sent to the market only; it may contradict what is on chain.
            if s.phase == "active" and s.accepted + len(s.signed) < s.end:
                yield Move("sign", "provider", s._replace(signed=(*s.signed, item)), (item,))

    def _approved(self, s: State, n: int) -> Iterator[Chain]:
        """Chains that an approver may sign up to n: its own word decides, also against what is claimed."""
        own = s.chain[s.accepted : s.claimed][: n - s.accepted]
        yield own + (True,) * (n - s.accepted - len(own))
        yield (True,) * (n - s.accepted)
        yield (True,) * (n - s.accepted - 1) + (False,)

    def _approvals(self, s: State) -> Iterator[Move]:
        for n in range(max(s.claimed, s.accepted + 1), s.end + 1):
            for chain in set(self._approved(s, n)):
                s2 = s._replace(chain=s.chain[: s.accepted] + chain, claimed=n)
                late, age = (False, s.age) if s.phase == "closing" else (s.late, 0)
                s2 = self._accept(s2, n, late)._replace(age=age)
                yield Move("redeem", "approver", self._paid_on(s2), chain)
        if s.claimed == s.accepted:
            yield Move("redeem last", "approver", self._exit(s, provider=s.stake))
        if s.accepted > s.settled:
            yield Move("collect", "anyone", self._paid_on(s))

    def _ends(self, s: State) -> Iterator[Move]:
        if s.phase == "active":
            pending = s.claimed > s.accepted
            late = s.age >= (max(self.n.timeout, self.n.window) if pending else self.n.timeout)
            ended = s._replace(phase="closing", age=0, late=late, active=s.active - 1)
            yield Move("end", "provider", ended)
            yield Move("end", "client", ended._replace(by_client=True))
            if late:
                yield Move("end", "anyone", ended)
        elif s.age >= self.n.window:
            assert s.claimed == s.accepted, "nothing can be pending at a close"
            penalty = min(self.n.ask_price, s.stake) if s.late and s.accepted < s.end else 0
            yield Move("close", "anyone", self._exit(s, provider=s.stake - penalty, client=penalty))

    def _challenges(self, s: State) -> Iterator[Move]:
        pending = s.chain[s.accepted : s.claimed]
        if pending and s.age < self.n.window:
            yield from self._disputes(s, pending, "challenge")
        if s.signed and (s.phase == "active" or s.age < self.n.window):
            yield from self._disputes(s, s.signed, "challenge signed")

    def _disputes(self, s: State, chain: Chain, name: str) -> Iterator[Move]:
        at_risk = self.n.price * max(len(chain), s.claimed - s.accepted)
        bond = self.n.arbiter_fee + min(at_risk, s.stake)  # the least: of a party of the lease
        if s.free.challenger < bond:
            return
        for k, right in enumerate(chain, s.accepted + 1):
            for verdict in self._thoughts(right):
                disputed = s._replace(
                    phase="challenged", from_closing=s.phase == "closing", age=0, k=k, verdict=verdict, bond=bond,
                    free=s.free.plus(challenger=-bond), signed=() if name == "challenge signed" else s.signed,
                )  # fmt: skip
                yield Move(name, "challenger", disputed, (right,))

    def _thoughts(self, right: bool) -> tuple[int, ...]:
        """What an arbiter may come to. One that can't convict may find a right checkpoint void: a client can have
        written the recipe so.
        """
        if self.convicts:
            return (TRUE if right else FALSE, SILENT)
        return (TRUE, VOID, UNREPRODUCIBLE, SILENT) if right else (VOID, UNREPRODUCIBLE, SILENT)

    def _approvals_in_dispute(self, s: State) -> Iterator[Move]:
        for n in range(s.accepted + 1, s.end + 1):
            chains = {s.chain[s.accepted : n]} if n < s.claimed else set(self._approved(s, n))
            for chain in chains:
                s2 = s
                if n >= s.claimed:
                    s2 = s._replace(chain=s.chain[: s.accepted] + chain, claimed=n)
                s2 = self._accept(s2, n, late=s.late and not s.from_closing)
                if n >= s.k:
                    free = s2.free.plus(arbiter=self.n.arbiter_fee, challenger=s.bond - self.n.arbiter_fee)
                    s2 = self._paid_on(self._revived(s2._replace(free=free)))
                else:
                    s2 = self._settle(s2)
                yield Move("redeem challenged", "approver", s2, chain)
        if s.accepted > s.settled:
            yield Move("collect", "anyone", self._settle(s))

    def _verdicts(self, s: State) -> Iterator[Move]:
        fee, stake, bond = self.n.arbiter_fee, s.stake, s.bond
        if s.verdict == TRUE:
            free = s.free.plus(arbiter=fee, provider=bond - fee)
            yield Move("true", "anyone", self._revived(s._replace(free=free)))
            return
        s = s._replace(claimed=s.accepted)
        if s.verdict == FALSE:
            reward = (stake - fee) // 5
            shares = {"challenger": bond + reward, "arbiter": fee, "client": stake - fee - reward}
            yield Move("false", "anyone", self._exit(s, **shares))
        elif s.verdict == VOID:
            yield Move("void", "anyone", self._exit(s, challenger=bond, arbiter=fee, burnt=stake - fee))
        elif s.verdict == UNREPRODUCIBLE:
            yield Move("unreproducible", "anyone", self._exit(s, challenger=bond - fee, arbiter=fee, provider=stake))
        elif s.age >= self.n.arbiter_timeout:
            yield Move("silence", "anyone", self._exit(s, challenger=fee, provider=bond - fee + stake))

    # ---------------------------------------------------------------- who is honest

    def allowed(self, s: State, move: Move) -> bool:
        if self.honest == "provider":
            return move.by != "provider" or all(move.truth)
        if self.honest == "client":
            if move.by == "approver":  # signs only what is right, on a right past
                return all(move.truth) and all(s.chain[: s.accepted])
            # With a client that watches the arbiter answers; else nothing could be said of anybody.
            return not (move.name.startswith("challenge") and move.after.verdict == SILENT)
        return True

    def waits(self, s: State) -> bool:
        """Whether everybody may let time go by. An honest party acts before its time is over."""
        y = self.synced(s)
        if self.honest == "provider" and y.phase == "active" and y.claimed == y.accepted:
            return s.age + 1 < self.n.timeout
        if self.honest == "client" and s.phase in LIVE and not all(s.chain[s.accepted : s.claimed]):
            return s.age + 1 < self.n.window
        return True

    # ---------------------------------------------------------------- what must hold

    def check(self, s: State) -> None:
        assert sum(s.free) + s.held == self.total, "tokens were made or lost"
        assert s.active == int(s.phase == "active" or (s.phase == "challenged" and not s.from_closing)), "active"
        assert s.paid <= self.n.checkpoints, "paid twice"
        if s.phase in ("none", "closed", "dead"):
            assert s.held == 0, "a lease that is over holds money"
            self._check_the_honest(s)
            return
        assert s.start <= s.settled <= s.accepted <= s.claimed <= s.end, "indices"
        assert len(s.chain) == s.claimed, "the chain is not what is claimed"

    def _check_the_honest(self, s: State) -> None:
        client, provider, _ = self.n.free
        if self.honest == "provider":
            # A void costs the stake of that lease, and what was not accepted; nothing else costs an honest one.
            voids = s.free.burnt // (self.n.stake - self.n.arbiter_fee)
            due = self.n.price * (s.earned if self.convicts else s.paid)
            assert s.free.provider + voids * self.n.stake >= provider + due, "an honest provider lost"
        if self.honest == "client":
            assert all(s.chain), "an honest client paid for a wrong checkpoint"
            assert s.free.client >= client - (self.n.price + self.n.fee) * s.paid, "an honest client was overcharged"

    # ---------------------------------------------------------------- search

    def search(self) -> dict[State, tuple[State, str] | None]:
        """Every state that can be reached, with where it was reached from. Raises AssertionError with the path."""
        seen: dict[State, tuple[State, str] | None] = {self.first: None}
        queue = deque([self.first])
        while queue:
            s = queue.popleft()
            try:
                after = [(move.name, move.after) for move in self.moves(s) if self.allowed(s, move)]
                if s.phase in (*LIVE, "challenged") and self.waits(s):
                    after.append(("wait", s._replace(age=min(self.n.cap, s.age + 1))))
                for name, x in after:
                    if x not in seen:
                        seen[x] = (s, name)
                        self.check(x)
                        queue.append(x)
            except AssertionError as error:
                raise AssertionError(f"{error}\nafter: {' / '.join(path(seen, s))}\nin {s}") from None
        return seen

    def stuck(self, s: State) -> bool:
        """Whether some money could not be got out by moves that anyone may make, and time."""
        for _ in range(10 * self.n.cap):
            if s.phase not in (*LIVE, "challenged"):
                return False
            exits = [move for move in self.moves(s) if move.by == "anyone"]
            exits.sort(key=lambda move: move.name == "collect")  # it only pays
            s = exits[0].after if exits else s._replace(age=min(self.n.cap, s.age + 1))
        return True


def path(seen: dict[State, tuple[State, str] | None], s: State) -> list[str]:
    names: list[str] = []
    while (came := seen.get(s)) is not None:
        s, name = came
        names.append(name)
    return names[::-1]
