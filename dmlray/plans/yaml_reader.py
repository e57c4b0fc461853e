"""The one reader of YAML, of files and of values on the command line: plain data of bounded size.

It reads mappings, lists and scalars of YAML 1.2's core schema, so that 1e-3 is a number and 010 is
ten, and YAML 1.1's words on and off. Tags, dates and merge keys are not read.
"""

import re
from typing import Any

import yaml

_MOST_LEVELS = 32
_MOST_ALIASED = 1000  # nodes that aliases stand for, all of them together
_NULL = re.compile(r"|~|null|Null|NULL")
_WORDS = {
    word: truth
    for truth, words in ((True, "true yes on"), (False, "false no off"))
    for lower in words.split()
    for word in (lower, lower.title(), lower.upper())
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Refused(yaml.MarkedYAMLError):
    """Legal YAML that is not read here."""


class _Loader(yaml.SafeLoader):
    """Composes nodes, and refuses tags, deep nesting and aliases that stand for much."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = self._aliased = self._count = 0
        self._sizes: dict[int, int] = {}  # id of a node -> how many nodes it is, aliases followed

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None):
            raise _refused(f"the tag {event.tag} is not allowed", event)
        if self._level == _MOST_LEVELS:
            raise _refused(f"is nested more than {_MOST_LEVELS} levels deep", event)
        before, self._level = self._count, self._level + 1
        node = super().compose_node(parent, index)
        self._level -= 1
        if isinstance(event, yaml.AliasEvent):
            self._follow(node, event)
        else:
            self._count += 1
            self._sizes[id(node)] = self._count - before
        return node

    def _follow(self, node: yaml.Node | None, event: yaml.AliasEvent) -> None:
        size = self._sizes.get(id(node))
        if size is None:
            raise _refused(f"*{event.anchor} is inside what it stands for", event)
        self._count, self._aliased = self._count + size, self._aliased + size
        if self._aliased > _MOST_ALIASED:
            raise _refused(f"aliases stand for more than {_MOST_ALIASED} values", event)


def compose(text: str) -> yaml.Node | None:
    """Compose the one document in `text`; None if there is none.

    Raises:
        ValueError: If it is no YAML or more than is read here; the text is the reason.
    """
    try:
        return _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        kind = "" if isinstance(error, _Refused) else "is not YAML: "
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise ValueError(f"line {line}  {kind}{reason}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"line {line}  is not YAML: holds {chr(error.character)!r}") from None
    except (ValueError, OverflowError):  # PyYAML makes characters of any number
        raise ValueError("is not YAML: an escape names no character") from None


def plain(node: yaml.Node) -> Any:
    """What a node stands for: dict, list, str, int, float, bool or None.

    Raises:
        ValueError: If a key is no text or is given twice.
    """
    if isinstance(node, yaml.MappingNode):
        mapping = {key_of(key): plain(value) for key, value in node.value}
        if len(mapping) < len(node.value):
            raise ValueError(f"line {node.start_mark.line + 1}  a duplicate key")
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [plain(value) for value in node.value]
    quoted = getattr(node, "style", None)
    return node.value if quoted else _scalar(node.value)


def key_of(node: yaml.Node) -> str:
    """The text of a key.

    Raises:
        ValueError: If it is a list or a mapping, or empty at a dot.
    """
    line = f"line {node.start_mark.line + 1}"
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{line}  a list or a mapping is no key. Allowed: text")
    if not all(node.value.split(".")):
        raise ValueError(f"{line}  {node.value!r} is no key. Allowed: names with dots between")
    return str(node.value)


def _scalar(text: str) -> Any:
    if _NULL.fullmatch(text):
        return None
    if text in _WORDS:
        return _WORDS[text]
    try:
        if _INT.fullmatch(text):
            return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    except ValueError:  # Python makes no number of thousands of digits
        return text
    if _NO_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return float(text) if _FLOAT.fullmatch(text) else text


def _refused(problem: str, event: yaml.Event) -> _Refused:
    return _Refused(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]
