"""The levels of proof that ship: how much is replayed at each. Pure."""

from contracts.audits.verification import Level, Verification

# SHA-256 of shipped recipes that were reviewed: bounded config, data that can't execute, deterministic kernels, nothing
# beside recipe.py to load.
REVIEWED = (
    "0x1f98cd366e209a4071a73f710d0f14152dd1c498f3a4332dd8b497e77e3e2bab",
    "0xb0fbd7c8171354601c6cb35b8a1668e7eefcef7c8fc936dfd61ffa48fe6d660a",
)

UNCHECKED = Verification(
    version=1,
    level="unchecked",
    share_ppm=0,
    approve_every=1,
    classes=(),
    threads=None,
    recipes=(),
    tolerance=None,
    arbiter="operator",
    unreproducible="unaudited",
)
OPEN = UNCHECKED.model_copy(
    update={"level": "open", "share_ppm": 200_000, "approve_every": 6, "arbiter": "recompute", "unreproducible": "end"}
)
CLOSED = OPEN.model_copy(
    update={"level": "closed", "share_ppm": 100_000, "approve_every": 4, "recipes": tuple(sorted(REVIEWED))}
)
# A devnet's first rule-set, which new orders take by default, is of the first.
SHIPPED: dict[Level, Verification] = {"open": OPEN, "closed": CLOSED, "unchecked": UNCHECKED}
BY_HASH = {one.hash(): one for one in SHIPPED.values()}

# What rule-sets of version 0.1 commit to: no Verification, and nothing was replayed under them.
BEFORE = frozenset({"0x2ff1a381ee1b4b48924e9c86e2ae418f01365071ab56a68c7927fd2d6c3e2a14"})
