"""Every line that a recipe prints comes to `job logs` once, whatever becomes of its process."""

import re
from collections import Counter
from pathlib import Path

import pytest

from contracts.api.bodies import JobStatus
from tests.integration.worker.agent.test_agent import recipes_of
from tests.support.recipes import PRINTING
from tests.support.whole_market import Stage, StageOf, paid, terminate, wait_for

pytestmark = pytest.mark.mostly_sqlite


def logged(stage: Stage, job: str) -> dict[str, list[tuple[str, int]]]:
    """By process: what it printed in which step, in order. Step 1 is once more there, to count its work."""
    text = "".join(one.text for one in stage.market.reports(job) if one.report.kind == "log")
    found: dict[str, list[tuple[str, int]]] = {}
    for process, what, step in re.findall(r"^(\d+) (step|echo|puts) (\d+)", text, re.MULTILINE):
        found.setdefault(process, []).append((what, int(step)))
    return found


def whole(lines: list[tuple[str, int]], what: str, first: int, last: int | None = None) -> bool:
    steps = [step for kind, step in lines if kind == what]
    return steps == [1, *range(first, (last or steps[-1]) + 1)]


def test_lines_of_a_recipe_that_fails_and_where_it_did(stage_of: StageOf) -> None:
    stage = stage_of()
    job = stage.submit(checkpoints=12, source=PRINTING, recipe="Prints", fail_at=46)
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(200)
        assert not agent.is_alive()
    assert paid(stage) == (11, 11)
    (lines,) = logged(stage, job).values()
    assert all(whole(lines, what, 1, 46) for what in ("step", "echo", "puts")), lines
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


def test_lines_of_processes_that_were_killed_and_of_one_that_was_stopped(stage_of: StageOf) -> None:
    stage = stage_of()
    job = stage.submit(checkpoints=16, pause=0.1, source=PRINTING, recipe="Prints")
    with stage.approving():
        process = stage.agent_process()
        wait_for("a checkpoint", lambda: stage.made() >= 1)
        (recipe,) = recipes_of(process.pid)
        recipe.kill()
        wait_for("checkpoints of the next", lambda: stage.made() >= 5)
        process.kill()  # the agent itself
        process.wait()
        made = stage.folder().file.made
        again = stage.agent_process()
        wait_for("more checkpoints", lambda: stage.made() > made + 1)
        assert terminate(again, 120) == 0
        stage.agent_process()
        wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
        wait_for("the last line", lambda: any(("step", 64) in lines for lines in logged(stage, job).values()))
    found = logged(stage, job)
    assert len(found) == 4, found.keys()
    first = 1
    for lines in found.values():
        # A checkpoint's steps are done again by whoever goes on from the one before.
        assert lines[3][1] <= first, (lines, first)
        assert whole(lines, "step", lines[3][1]), lines
        first = lines[-1][1] + 1
    assert max(Counter(line for line in lines if line[1] > 1).values()) == 1
    assert first == 65


def test_of_a_failing_recipe_the_log_lies_with_the_provider(stage_of: StageOf) -> None:
    stage = stage_of()
    stage.submit(checkpoints=3, source=PRINTING, recipe="Prints", fail_at=2)
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(200)
        assert not agent.is_alive()
    log: Path = stage.folder().work_folder / "log.txt"
    assert "the secret word is swordfish" in log.read_text()
    assert stage.folder().file.reason == "exception: ValueError: swordfish is the secret word"
    assert not stage.folder().printed.exists()
