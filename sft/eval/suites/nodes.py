"""YAML and JSON text as values that know on which line they stand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from sft.errors import UserError

_MOST = 1_000_000  # values of a suite


@dataclasses.dataclass(frozen=True)
class Node:
    """A value of a file.

    Attributes:
      value: ``dict[str, Node]``, ``list[Node]``, or a scalar.
      where: ``path:line``.
    """

    value: Any
    where: str

    def plain(self) -> Any:
        """The value alone."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def named(node: Node) -> str:
    """What kind of value this is. YAML makes a date of 2021-03-04, and true of yes."""
    kinds: dict[type, str] = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
    }
    kinds |= {float: "a number", type(None): "nothing"}
    return kinds.get(type(node.value)) or f"a {type(node.value).__name__}"


def text(node: Node, key: str) -> str:
    """The text of this key, not blank.

    Raises:
      UserError: it is not.
    """
    if not isinstance(node.value, str):
        hint = "" if isinstance(node.value, dict | list | None) else " Put it in quotes."
        raise UserError(f"{node.where}: {key}: expected text, found {named(node)}.{hint}")
    if not node.value.strip():
        raise UserError(f"{node.where}: {key}: no text. Fill it in, or remove the key.")
    return node.value


def items(node: Node, key: str) -> list[Node]:
    """Those of a list that is not empty; a value that is no list is the only one."""
    if not isinstance(node.value, list):
        return [node]
    if not node.value:
        raise UserError(f"{node.where}: {key}: an empty list. Fill it in, or remove the key.")
    return node.value


def texts(node: Node, key: str) -> list[str]:
    """One text, or a list of them."""
    return [text(item, key) for item in items(node, key)]


def read(path: str) -> Node:
    """The whole of a suite's file: a mapping.

    JSONL has one case a line, and may open with a line ``{"suite": {…}}`` of the suite's own
    settings; it becomes what the same suite is in YAML.

    Raises:
      UserError: missing, not UTF-8, another ending, or not well-formed; names the line.
    """
    ending = Path(path).suffix
    if ending not in (".yaml", ".yml", ".jsonl"):
        raise UserError(f"{path}: a suite ends in .yaml, .yml or .jsonl, not in {ending!r}.")
    text = _text(path)
    try:
        root = _jsonl(text, path) if ending == ".jsonl" else _yaml(text, path)
        _check(root, "", {})
        return root
    except RecursionError:
        raise UserError(f"{path}: lists or mappings nested too deeply.") from None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Check config.eval.suites.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}:{line}: not UTF-8 (byte {error.start}). Save it as UTF-8."
        ) from None


def _jsonl(text: str, path: str) -> Node:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            rows.append(_lined(json.loads(line, object_pairs_hook=_Pairs), where))
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON (column {error.colno}: {error.msg}).") from None
        except ValueError:  # of thousands of digits
            raise UserError(f"{where}: a number that is too long. Put it in quotes.") from None
    settings: dict[str, Node] = {}
    if rows and isinstance(rows[0].value, dict) and list(rows[0].value) == ["suite"]:
        own = rows.pop(0).value["suite"]
        if not isinstance(own.value, dict):
            raise UserError(f"{own.where}: suite: expected an object of settings.")
        if "cases" in own.value:
            raise UserError(f"{own.where}: suite: cases are the other lines of a JSONL file.")
        settings = own.value
    return Node(settings | {"cases": Node(rows, path)}, path)


class _Pairs(list):
    """The (key, value) pairs of a JSON object, which may have a key twice."""


def _lined(value: Any, where: str) -> Node:
    if isinstance(value, _Pairs):
        found: dict[str, Node] = {}
        for key, inner in value:
            _once(key, found, where)
            found[key] = _lined(inner, where)
        return Node(found, where)
    if isinstance(value, list):
        return Node([_lined(inner, where) for inner in value], where)
    return Node(value, where)


def _yaml(text: str, path: str) -> Node:
    import yaml
    from yaml.reader import ReaderError

    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise UserError(f"{path}: empty. Expected a suite: a mapping with cases.")
        return _from_yaml(root, path, loader, {})
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not YAML ({error.problem or error.context}).") from None
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        code = f"U+{ord(text[error.position]):04X}"
        raise UserError(f"{path}:{line}: {code} is no character for YAML. Remove it.") from None


def _from_yaml(node: Any, path: str, loader: Any, known: dict[int, Node | None]) -> Node:
    """An alias is the node it stands for, so it is converted once; inside itself it has no end."""
    import yaml

    where = f"{path}:{node.start_mark.line + 1}"
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise UserError(f"{where}: an alias inside what it stands for.")
        return found
    known[id(node)] = None
    if isinstance(node, yaml.MappingNode):
        value: Any = {}
        for key_node, inner in node.value:
            at = f"{path}:{key_node.start_mark.line + 1}"
            key = key_node.value
            if not isinstance(key, str):
                raise UserError(f"{at}: expected a name before the colon.")
            _once(key, value, at)
            # A text that goes on for lines is named by its key's line.
            value[key] = dataclasses.replace(_from_yaml(inner, path, loader, known), where=at)
    elif isinstance(node, yaml.SequenceNode):
        value = [_from_yaml(inner, path, loader, known) for inner in node.value]
    else:
        try:
            value = loader.construct_object(node)
        except yaml.YAMLError:
            raise
        except Exception:  # PyYAML's, of any kind: 2021-02-31, or a tag that does not fit
            is_tagged = loader.resolve(yaml.ScalarNode, node.value, (True, False)) != node.tag
            tag = f", and leave out the tag !!{node.tag.rpartition(':')[2]}" if is_tagged else ""
            raise UserError(
                f"{where}: {node.value[:60]!r}: put it in quotes to make it text{tag}."
            ) from None
    made = Node(value, where)
    known[id(node)] = made
    return made


def _check(node: Node, key: str, sizes: dict[int, int]) -> int:
    """Refuses text that no file can hold, and aliases that stand for more than anybody wrote.

    Returns:
      The number of values, each as often as it is stood for.
    """
    if id(node) in sizes:
        return sizes[id(node)]
    count, value = 1, node.value
    if isinstance(value, dict):
        for name, inner in value.items():
            _check(Node(name, inner.where), name[:60].encode(errors="replace").decode(), {})
            count += _check(inner, name, sizes)
    elif isinstance(value, list):
        count += sum(_check(inner, key, sizes) for inner in value)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            place = f"{node.where}: {key}" if key else node.where
            raise UserError(f"{place}: half of a surrogate pair, which is no text.") from None
    if count > _MOST:
        raise UserError(f"{node.where}: aliases that stand for more than {_MOST:,} values.")
    sizes[id(node)] = count
    return count


def _once(key: str, found: dict[str, Node], where: str) -> None:
    if key in found:
        raise UserError(f"{where}: {key!r} is given twice. Keep one of them.")
