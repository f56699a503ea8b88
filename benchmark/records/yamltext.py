"""YAML read strictly as plain values: no key twice, no aliases without bound, no tag that is code."""

from collections.abc import Hashable
from typing import Any

import yaml

LARGEST = 100_000
"""Values that a text may have once its aliases are filled in."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a repeated key, of which YAML would silently use the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise _error("a key is a list or table, not a name", key_node)
            key = self.construct_object(key_node)
            if key in seen:
                raise _error(f"key {key!r} is given twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, str):
                value.encode()  # half of a surrogate pair can be written as an escape
        except ValueError as error:  # such as a date that there is not, or too many digits
            raise _error(str(error), node) from None
        return value


def parse(text: str) -> Any:
    """The value of a YAML text. Raises ValueError, with a message of one line, for any that is not sound."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ValueError(f"{line}{problem.splitlines()[0]}") from None


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values in `node`, an alias counting as what it stands for.

    known: the sizes found before, by the id of their node; 0 while a node is being counted. Raises YAMLError
    for more than LARGEST, and for a value that contains itself.
    """
    if id(node) in known:
        if not known[id(node)]:
            raise _error("a list or table contains itself", node)
        return known[id(node)]
    if isinstance(node, yaml.ScalarNode):
        return 1
    known[id(node)] = 0
    pairs = isinstance(node, yaml.MappingNode)
    inner = [part for pair in node.value for part in pair] if pairs else node.value
    size = 1 + sum(_size(part, known) for part in inner)
    if size > LARGEST:
        raise _error(f"aliases stand for more than {LARGEST:,} values", node)
    known[id(node)] = size
    return size


def _error(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
