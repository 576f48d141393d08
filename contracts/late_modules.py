"""Puts off the import of slow modules that libraries import with themselves, and that most programs never use."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import Any


class LateModule(ModuleType):
    """Stands in for a module, with what is `at_hand`; the module is imported once anything else of it is asked for."""

    def __init__(self, name: str, **at_hand: Any) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # it may be a package: what is in it, `_Parts` finds
        self.__dict__.update(at_hand)

    def stand_in(self) -> None:
        """From now on, unless the module is there already."""
        if not any(isinstance(finder, _Parts) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Parts())
        sys.modules.setdefault(self.__name__, self)

    def stands_in(self) -> bool:
        return sys.modules.get(self.__name__) is self

    def module(self) -> ModuleType:
        if self.stands_in():
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # such as __file__, which debuggers ask each module for
            raise AttributeError(name)
        return getattr(self.module(), name)


class _Parts:
    """Finds modules in packages that something stands in for: imports the package, which may import them, too."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package = sys.modules.get(name.rpartition(".")[0])
        if not isinstance(package, LateModule):
            return None
        package.module()
        found = sys.modules.get(name)
        if found is None:
            return find_spec(name)
        # What importlib loads then is the module's own spec: that would run the module again.
        found.__spec__ = spec_from_loader(name, _Imported(found))
        return found.__spec__


class _Imported(Loader):
    """Loads what has been imported meanwhile."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _LateBls:
    """What signs with BLS, once it is asked to."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("py_ecc.bls.ciphersuites").G2ProofOfPossession, name)


BLS_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001


def put_off_bls() -> None:
    """eth_account imports eth_keyfile, and that the pairings of BLS12-381, for the keystores of validators: they take a
    second to make. A wallet's keystore needs none of it."""
    if "eth_keyfile" not in sys.modules:
        LateModule("py_ecc.bls", G2ProofOfPossession=_LateBls()).stand_in()
        LateModule("py_ecc.bls12_381", curve_order=BLS_ORDER).stand_in()
