"""YAML 1.2 as people write it, read without surprises: a key twice, a tag or a merge is an error with its line.

ruamel.yaml finds the structure; the values are made here, so that those that hold money stay the text they were
written as.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLStreamError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from contracts.errors import UserError

MAX_DEPTH = 100  # of what is nested; a job's config allows less
MAX_BYTES = 512 << 10  # of a document: a thousand files with their addresses need less
MAX_DIGITS = 100
MAX_VALUES = 100_000  # in a document: a few aliases of aliases could stand for any number
Path = tuple[str | int, ...]  # keys and places on the way to a value

_TOO_DEEP = f"what is nested more than {MAX_DEPTH} deep"
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NULL = ("", "~", "null", "Null", "NULL")
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


@dataclass
class YamlDocument:
    """A document's value, and the line (from 1) that each value in it stands on."""

    value: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int | None:
        """Of the value at `path`, or of the nearest around it that there is."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def parse_yaml(text: str, what: str, as_written: Collection[str] = ()) -> YamlDocument:
    """The one document in `text`; `as_written`: top-level keys whose plain values stay text. UserError names lines."""
    check_length(len(text), what)
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = MAX_DEPTH + 1  # and the document itself
    try:
        node = yaml.compose(text)
    except MaxDepthExceededError as error:
        raise _not_read(what, error.problem_mark.line + 1, _TOO_DEEP) from error
    except MarkedYAMLError as error:
        raise UserError(f"{what} is not valid YAML: {_told(error)}") from error
    except (YAMLError, YAMLStreamError, ValueError) as error:
        raise UserError(f"{what} is not valid YAML: {' '.join(str(error).split())}") from error
    document = YamlDocument(None)
    if node is not None:
        document.value = _Reader(what, as_written, document.lines, yaml.resolver).value(node, ())
    return document


def check_length(length: int, what: str) -> None:
    """Raises UserError for a document that nobody has written by hand: it would take minutes."""
    if length > MAX_BYTES:
        raise UserError(f"{what} is longer than {MAX_BYTES >> 10} KiB", "put what is large into a file of its own")


def _told(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + ", ".join(part for part in (error.problem, error.context) if part)


class _Reader:
    def __init__(self, what: str, as_written: Collection[str], lines: dict[Path, int], resolver: Any) -> None:
        self._what, self._as_written, self._lines, self._resolver = what, as_written, lines, resolver
        self._values = 0

    def value(self, node: Node, path: Path) -> Any:
        self._lines[path] = _line(node)
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._wrong(
                node, f"what has over {MAX_VALUES} values, each alias (*name) counted as all it stands for,"
            )
        if len(path) > MAX_DEPTH:  # an alias inside of what it stands for never ends
            raise self._wrong(node, _TOO_DEEP)
        match node:
            case MappingNode():
                return self._mapping(node, path)
            case SequenceNode():
                self._no_tag(node, "seq")
                return [self.value(one, (*path, place)) for place, one in enumerate(node.value)]
            case ScalarNode():
                return self._scalar(node, plain_is_text=path[:1] in {(key,) for key in self._as_written})
        raise AssertionError(f"a node of YAML is one of three, not {type(node).__name__}")

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        self._no_tag(node, "map")
        found: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise self._wrong(key_node, "a key that is a list or a mapping", "keys are text")
            key = self._text(key_node)
            if not key_node.style:
                self._is_tagged_text(key_node)
            if key == "<<" and not key_node.style:
                raise self._wrong(key_node, "a merge (<<)", "write the fields out")
            if key in found:
                raise UserError(
                    f"{self._what} has the key {key!r} twice, in line {first[key]} and in line {_line(key_node)}",
                    "delete one of them",
                )
            first[key] = _line(key_node)
            found[key] = self.value(value_node, (*path, key))
            self._lines[(*path, key)] = first[key]  # where the key stands: a value may begin lines below it
        return found

    def _scalar(self, node: ScalarNode, *, plain_is_text: bool) -> Any:
        text = self._text(node)
        if node.style:  # quoted, or a block
            self._no_tag(node, "str")
            return text
        if self._is_tagged_text(node):
            return text
        if text in _NULL:
            return None
        if plain_is_text or str(node.tag) == _TAG + "str":
            return text
        if text in _BOOLS:
            return _BOOLS[text]
        if _INTEGER.fullmatch(text):
            return self._integer(node, text)
        if _FLOAT.fullmatch(text):
            return float(text)
        if _SPECIAL.fullmatch(text):
            return float(text.replace(".", "", 1))
        return text

    def _integer(self, node: ScalarNode, text: str) -> int:
        prefix = text[:2] if text[:2] in ("0o", "0x") else ""
        if (digits := len(text.removeprefix(prefix).lstrip("+-"))) > MAX_DIGITS:
            raise self._wrong(node, f"a number of {digits} digits")
        return int(text, 0 if prefix else 10)

    def _text(self, node: ScalarNode) -> str:
        """What is escaped as JSON escapes it, in two halves, is one character."""
        text: str = node.value
        if not any("\ud800" <= char <= "\udfff" for char in text):
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise self._wrong(
                node, "half of a character (a surrogate, such as \\ud83d) without its other half"
            ) from error

    def _is_tagged_text(self, node: ScalarNode) -> bool:
        """Whether a plain value has the tag !!str. Refuses one that makes of it what it is not without."""
        tag, plain = str(node.tag), str(self._resolver.resolve(ScalarNode, node.value, (True, False)))
        if tag not in (plain, _TAG + "str"):
            raise self._wrong_tag(node)
        return tag != plain

    def _no_tag(self, node: Node, *usual: str) -> None:
        """Refuses `!!binary`, `!mine` and the like."""
        tag = str(node.tag)
        if tag.removeprefix(_TAG) not in usual or (tag == node.tag and not tag.startswith(_TAG)):
            raise self._wrong_tag(node)

    def _wrong_tag(self, node: Node) -> UserError:
        return self._wrong(node, f"the tag {str(node.tag).removeprefix(_TAG)!r}", "write the value without it")

    def _wrong(self, node: Node, found: str, hint: str | None = None) -> UserError:
        return _not_read(self._what, _line(node), found, hint)


def _not_read(what: str, line: int, found: str, hint: str | None = None) -> UserError:
    return UserError(f"{what} line {line}: {found} is not read here", hint)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
