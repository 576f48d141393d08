"""Which jobs may convict: one reviewed file and data, nothing else that could be loaded."""

from typing import Any

import pytest

from contracts.audits.levels import CLOSED, OPEN, REVIEWED
from contracts.audits.recipes import code_of, why_open
from contracts.job.spec import FileRef, JobSpec
from tests.support.market_parts import make_spec

KNOWN, OTHER = FileRef(sha256=REVIEWED[0], size=1), FileRef(sha256="0x" + "11" * 32, size=1)


def job(recipe: str = "recipe.py:Digits", **files: Any) -> JobSpec:
    return make_spec(recipe=recipe, files={"recipe.py": KNOWN, **files})


def test_a_reviewed_recipe_and_its_data() -> None:
    spec = job(**{"digits.npz": OTHER, "more/weights.safetensors": OTHER})
    assert (code_of(spec), why_open(CLOSED, spec)) == (REVIEWED[0], None)
    assert why_open(OPEN, spec) == "its rules are 'open'"


@pytest.mark.parametrize("beside", ["torch.py", "a/__init__.py", "x.so", "x.pth", "w.pt", "d.pkl", "m.zip", "plain"])
def test_what_might_be_loaded(beside: str) -> None:
    spec = job(**{beside: OTHER})
    assert code_of(spec) is None
    assert f"{beside!r} lies beside its recipe and might be loaded" in str(why_open(CLOSED, spec))


def test_other_recipes() -> None:
    elsewhere = job("torch.py:Digits", **{"torch.py": KNOWN})
    assert code_of(elsewhere) is None
    assert why_open(CLOSED, elsewhere) == "its recipe is 'torch.py'; a closed one is 'recipe.py'"
    unknown = job(**{"recipe.py": OTHER})
    assert why_open(CLOSED, unknown) == f"its recipe {OTHER.sha256} is not among those that its rules list"
