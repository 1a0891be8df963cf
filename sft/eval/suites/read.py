"""Suites from files, checked to the last key before any model is loaded.

    description: what it is about                 # all settings but cases may be left out
    system: Write the date as YYYY-MM-DD.         # system instruction of all cases
    max_new_tokens: 32                            # cap on the answers; else config.eval's
    ignore_case: false                            # upper and lower case are the same
    ignore_space: false                           # any white space is one space
    refusals: [default, '\\bnot a date\\b']         # see sft/eval/suites/refusals.py
    cases:
      - id: leap-day                              # once in the suite
        kind: success                             # success | failure | boundary
        prompt: "en-GB: 29 February 2024"         # or turns: [{role: user, text: …}, …]
        expect:                                   # all must hold
          equals: "2024-02-29"                    # or a list: one of them
        note: for people

In ``expect``: ``contains``, ``not_contains``, ``regex``, ``not_regex`` (one, or a list of which all
must hold), ``equals``, ``json_schema`` (the schema, or the path of one from the suite's folder),
``refuses`` (true or false), ``judge`` (a criterion in words). A case may have ``system``,
``ignore_case`` and ``ignore_space`` of its own; ``system: null`` is none. What
``config.data.reading`` adds to rows is not added here: the suite says all that the model is sent.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from sft.config import nearest
from sft.data.conversation import ROLES, Labels, Turn, role_problem
from sft.errors import UserError
from sft.eval.suites import checks, refusals, schemas
from sft.eval.suites.cases import KINDS, Case, Check, Suite
from sft.eval.suites.nodes import Node, named, read, text, texts

_OPTIONS = ("ignore_case", "ignore_space")
_SUITE = ("description", "system", "max_new_tokens", *_OPTIONS, "refusals", "cases")
_CASE = ("id", "kind", "prompt", "turns", "system", *_OPTIONS, "expect", "note")
_EXPECT = (*checks.BUILDERS, "judge")
_LABELS = Labels(turns="turns", role="role")
Given = dict[str, Node]


def listed(names: str) -> list[Suite]:
    """The suites of ``config.eval.suites``: files joined by commas.

    Raises:
      UserError: none, two of one name, or a suite that is not as above; names file and line.
    """
    paths = [path.strip() for path in names.split(",")]
    if not all(paths):
        empty = "is not set" if not any(paths) else f"= {names!r}: a name between commas is empty"
        raise UserError(f"config.eval.suites {empty}. Give a file, as configs/suites/dates.yaml.")
    suites: dict[str, Suite] = {}
    for path in paths:
        suite = load(path)
        if suite.name in suites:
            raise UserError(
                f"config.eval.suites: {path}: {suites[suite.name].path} is called {suite.name!r} "
                "too, and results are kept by that name. Rename one."
            )
        suites[suite.name] = suite
    return list(suites.values())


def load(path: str) -> Suite:
    """One suite.

    Raises:
      UserError: as ``listed``.
    """
    name = Path(path).name.split(".")[0]
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"{path}: results are kept by this name: letters, digits, _ and - only.")
    root = read(path)
    given = _keys(root, _SUITE, "the suite")
    cap = given.get("max_new_tokens", Node(0, path))
    if type(cap.value) is not int or cap.value < ("max_new_tokens" in given):
        raise UserError(f"{cap.where}: max_new_tokens: expected a whole number above 0.")
    nodes = given.get("cases", Node([], root.where))
    if not isinstance(nodes.value, list):
        raise UserError(f"{nodes.where}: cases: expected a list, found {named(nodes)}.")
    if not nodes.value:
        raise UserError(f"{nodes.where}: no cases. Give at least one, under cases.")
    patterns = texts(given["refusals"], "refusals") if "refusals" in given else [refusals.DEFAULT]
    if "refusals" in given:
        checks.compiled(given["refusals"], "refusals", re.IGNORECASE)
    seen: dict[str, str] = {}
    cases = []
    for node in nodes.value:
        case = _case(node, given, patterns, Path(path).parent)
        if case.id in seen:
            raise UserError(f"{case.where}: id {case.id!r} is that of {seen[case.id]} too.")
        seen[case.id] = case.where
        cases.append(case)
    description = text(given["description"], "description") if "description" in given else ""
    return Suite(name, path, description, cap.value, tuple(cases))


def _case(node: Node, suite: Given, patterns: Sequence[str], folder: Path) -> Case:
    given = _keys(node, _CASE, "a case")
    for key in ("id", "kind", "expect"):
        if key not in given:
            raise UserError(f"{node.where}: the case has no {key}.")
    kind = text(given["kind"], "kind")
    if kind not in KINDS:
        hint = nearest(kind, list(KINDS))
        raise UserError(f"{given['kind'].where}: kind {kind!r}: expected one of {KINDS}.{hint}")
    node_of_system = given.get("system") or suite.get("system")
    has_system = node_of_system is not None and node_of_system.value is not None
    system = text(node_of_system, "system") if node_of_system and has_system else None
    options = {key: _flag(key, given, suite) for key in _OPTIONS}
    how = checks.How(**options, refusals=refusals.patterns(patterns), folder=folder)
    expect = _keys(given["expect"], _EXPECT, "expect")
    if not expect:
        raise UserError(f"{given['expect'].where}: expect: empty. Known: {', '.join(_EXPECT)}.")
    turns = _turns(node, given)
    rules = {
        "kind": kind,
        "system": system,
        "turns": [(turn.role, turn.text) for turn in turns],
        "expect": {name: inner.plain() for name, inner in expect.items()},
        "options": options,
        "refusals": patterns if "refuses" in expect else [],
        "schema": schemas.load(expect["json_schema"], folder) if "json_schema" in expect else None,
    }
    made = tuple(_check(name, inner, how) for name, inner in expect.items())
    return Case(
        id=text(given["id"], "id"),
        kind=kind,
        turns=turns,
        system=system,
        checks=made,
        where=node.where,
        note=text(given["note"], "note") if "note" in given else "",
        key=hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:12],
    )


def _turns(node: Node, given: Given) -> tuple[Turn, ...]:
    if ("prompt" in given) == ("turns" in given):
        found = "both" if "prompt" in given else "neither"
        raise UserError(f"{node.where}: expected prompt or turns, found {found}.")
    if "prompt" in given:
        return (Turn("user", text(given["prompt"], "prompt")),)
    nodes, turns = given["turns"], []
    if not isinstance(nodes.value, list):
        raise UserError(f"{nodes.where}: turns: expected a list, found {named(nodes)}.")
    for item in nodes.value:
        turn = _keys(item, ("role", "text"), "a turn")
        for key in ("role", "text"):
            if key not in turn:
                raise UserError(f"{item.where}: the turn has no {key}.")
        role = text(turn["role"], "role")
        if role not in ROLES:
            raise UserError(f"{turn['role'].where}: role {role!r}: expected one of {ROLES}.")
        turns.append(Turn(role, text(turn["text"], "text"), trained=False))
    problem = role_problem(turns, last="user", labels=_LABELS)
    if problem:
        raise UserError(f"{nodes.where}: {problem}.")
    return tuple(turns)


def _check(name: str, node: Node, how: checks.How) -> Check:
    if name == "judge":
        return Check(name, text(node, name), None)
    fault = checks.BUILDERS[name](node, how)
    return Check(name, node.plain(), fault)


def _flag(key: str, case: Given, suite: Given) -> bool:
    node = case.get(key) or suite.get(key)
    if node is None:
        return False
    if not isinstance(node.value, bool):
        raise UserError(f"{node.where}: {key}: expected true or false, found {named(node)}.")
    return node.value


def _keys(node: Node, known: Sequence[str], what: str) -> Given:
    """The keys of a mapping, all of them known."""
    if not isinstance(node.value, dict):
        raise UserError(f"{node.where}: expected {what} as a mapping, found {named(node)}.")
    for key, inner in node.value.items():
        if key not in known:
            hint = nearest(key, list(known))
            raise UserError(
                f"{inner.where}: {what} has no key {key!r}.{hint} Known: {', '.join(known)}."
            )
    return node.value
