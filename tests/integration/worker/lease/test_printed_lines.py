"""Every line that a recipe prints comes to `job logs` once, also the last ones."""

import re

import pytest

from tests.support.recipes import PRINTING
from tests.support.whole_market import Stage, StageOf, paid

pytestmark = pytest.mark.mostly_sqlite


def logged(stage: Stage, job: str) -> dict[str, list[tuple[str, int]]]:
    """By process: what it printed in which step, in order. Step 1 is once more there, to count its work."""
    text = "".join(one.text for one in stage.market.reports(job) if one.report.kind == "log")
    found: dict[str, list[tuple[str, int]]] = {}
    for process, what, step in re.findall(r"^(\d+) (step|echo|puts) (\d+)", text, re.MULTILINE):
        found.setdefault(process, []).append((what, int(step)))
    return found


def whole(lines: list[tuple[str, int]], what: str, last: int) -> bool:
    return [step for kind, step in lines if kind == what] == [1, *range(1, last + 1)]


def test_lines_of_a_recipe_that_fails_and_where_it_did(stage_of: StageOf) -> None:
    stage = stage_of()
    job = stage.submit(checkpoints=12, source=PRINTING, recipe="Prints", fail_at=46)
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (11, 11)
    (lines,) = logged(stage, job).values()
    assert all(whole(lines, what, 46) for what in ("step", "echo", "puts")), lines
    reports = list(stage.market.reports(job))
    (failed,) = [one for one in reports if one.report.kind == "failed"]
    assert all(one.id < failed.id for one in reports if one.report.kind == "log")
    assert re.fullmatch(
        r"Traceback of the recipe:\n"
        r'  File "recipe.py", line \d+, in step\n'
        r'    raise ValueError\("swordfish is the secret word"\)\n'
        r"ValueError: swordfish is the secret word\n"
        r"exception: ValueError: swordfish is the secret word",
        failed.text,
    ), failed.text
