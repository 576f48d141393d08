"""An arbiter's verdicts: nobody is convicted by a machine that is not shown to repeat the job, or by a job that can
know where it runs.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.audits.ruling import Stretch, control_stretches, rule_bytes, rule_root, wants_control
from contracts.terms import Verdict

ROOTS = st.sampled_from(["0xaa", "0xbb", "0xcc"])
CONTROLS = st.sampled_from([True, False, None])


@given(ROOTS, st.lists(ROOTS, min_size=2, max_size=4), st.booleans(), CONTROLS)
def test_each_verdict_has_its_only_ground(claimed: str, roots: list[str], closed: bool, control: bool | None) -> None:
    verdict = rule_root(claimed, roots, closed=closed, control=control)
    one = len(set(roots)) == 1
    assert (verdict is Verdict.UNREPRODUCIBLE) == (not one)
    assert (verdict is Verdict.TRUE) == (one and roots[0] == claimed)
    assert (verdict is Verdict.FALSE) == (one and roots[0] != claimed and closed and control is True)
    if not wants_control(claimed, roots, closed):  # then it was not even looked for
        assert verdict is rule_root(claimed, roots, closed=closed, control=None)
    else:
        assert verdict in (Verdict.FALSE, Verdict.VOID)


@pytest.mark.parametrize("roots", [[], ["0xaa"]])
def test_one_run_is_no_ground(roots: list[str]) -> None:
    with pytest.raises(ValueError, match="it takes 2"):
        rule_root("0xaa", roots, closed=True, control=True)


@given(
    st.sampled_from(["there", "missing", "wrong", "away"]),
    st.integers(min_value=-10, max_value=10_000),
    st.integers(min_value=1, max_value=5_000),
)
def test_bytes_have_half_of_the_time_to_come(found: str, elapsed: int, timeout: int) -> None:
    verdict = rule_bytes(found, elapsed, timeout)  # type: ignore[arg-type]
    if found == "there":
        assert verdict is Verdict.TRUE
    elif found == "away":
        assert verdict is None
    else:
        assert (verdict is Verdict.FALSE) == (elapsed >= timeout / 2)


@given(
    st.lists(st.tuples(st.sampled_from(["liar", "other"]), st.booleans()), max_size=6),
)
def test_control_stretches(before: list[tuple[str, bool]]) -> None:
    stretches = [Stretch(n, provider, approved) for n, (provider, approved) in enumerate(before, 1)]
    found = control_stretches(stretches, "liar")
    assert len(found) == len(set(found)) <= 3
    assert found[:1] == [len(before)][: len(before)]
    for wanted in (
        [one.n for one in stretches if one.approved],
        [one.n for one in stretches if one.provider == "other"],
    ):
        assert not wanted or max(wanted) in found


def test_which_control_stretches_are_tried_in_which_order() -> None:
    stretches = [Stretch(1, "a", True), Stretch(2, "liar", True), Stretch(3, "liar", False)]
    assert control_stretches(stretches, "liar") == [3, 2, 1]
    assert control_stretches(stretches[:1], "liar") == [1]
