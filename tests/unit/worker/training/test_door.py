"""What users may import, against the pages that describe it: each function with its very signature."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator

import pytest

from tests.support import ROOT

PAGES = {"gpumarket.recipe": "docs/recipe-api.md", "gpumarket.checkpoints": "docs/checkpoints.md"}
Signatures = dict[str, str]


def told(page: str) -> Signatures:
    """Those that the page's Python has without a body; a method's name has its class before it."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return dict(signature for block in blocks for signature in signatures(ast.parse(block).body, bodiless=True))


def signatures(nodes: list[ast.stmt], before: str = "", *, bodiless: bool = False) -> Iterator[tuple[str, str]]:
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            yield from signatures(node.body, f"{node.name}.", bodiless=bodiless)
        if isinstance(node, ast.FunctionDef) and (not bodiless or ast.unparse(node.body[0]) == "..."):
            gives = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
            yield before + node.name, f"({ast.unparse(node.args)}){gives}"


def written(module: str) -> Signatures:
    """Those of the module's functions, and of its classes' methods."""
    door = importlib.import_module(module)
    found = [getattr(door, name) for name in door.__all__]
    sources = [inspect.getsource(one) for one in found if inspect.isfunction(one) or inspect.isclass(one)]
    return dict(signature for source in sources for signature in signatures(ast.parse(source).body))


def test_each_door_has_a_page() -> None:
    assert PAGES.keys() == {f"gpumarket.{file.stem}" for file in (ROOT / "gpumarket").glob("[a-z]*.py")}


@pytest.mark.parametrize(("module", "page"), PAGES.items())
def test_each_signature_is_in_the_docs(module: str, page: str) -> None:
    here = written(module)
    assert here, f"{module} has no function"
    assert {name: told(page).get(name) for name in here} == here


@pytest.mark.parametrize(("module", "page"), PAGES.items())
def test_the_docs_have_no_other(module: str, page: str) -> None:
    optional = {"Recipe.evaluate", "Recipe.load_weights"}  # a Protocol can't say so
    assert told(page).keys() - optional == written(module).keys()
