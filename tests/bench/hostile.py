"""What strangers can do to a market: each attack against one of its own, which asks the same of it all the time.

healthz_max_s      longest wait for /healthz under any attack; and by attack, as healthz_max_s_NAME
info_max_s         longest wait for /v1/info while the node is silent and strangers come with forged tokens
memory_growth_mb   most that an attack has made a market's memory grow; and by attack
approved_behind_bad_s   from an honest Claim to its Approval, behind checkpoints that are slow to check
"""

from collections.abc import Iterator

from tests.bench import Figure, report
from tests.bench._slow_checks import approved_behind_bad
from tests.bench._strangers import ATTACKS, Asking, Attack, forged_tokens
from tests.bench._victim import victim


def main(json: bool) -> None:
    report(measure(), json)


def measure() -> Iterator[Figure]:
    waits, growths = [], []
    for attack in ATTACKS:
        wait, growth, asked = _under(attack)
        waits.append(wait)
        growths.append(growth)
        yield f"healthz_max_s_{attack.__name__}", wait, "s"
        yield f"memory_growth_mb_{attack.__name__}", growth, "MB"
        if asked is not None:
            yield "info_max_s", asked, "s"
    yield "healthz_max_s", max(waits), "s"
    yield "memory_growth_mb", max(growths), "MB"
    yield "approved_behind_bad_s", approved_behind_bad(), "s"


def _under(attack: Attack) -> tuple[float, float, float | None]:
    """Longest wait for /healthz, growth of memory, and longest wait for /v1/info where an attack is on that."""
    with victim() as attacked:
        before = attacked.memory_mb()
        if attack is forged_tokens:
            with Asking(attacked, "/v1/info") as asking:
                wait = attacked.healthz_under(lambda: attack(attacked))
            return wait, attacked.memory_mb(peak=True) - before, asking.longest
        wait = attacked.healthz_under(lambda: attack(attacked))
        return wait, attacked.memory_mb(peak=True) - before, None
