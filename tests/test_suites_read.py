"""Suites that are not sound, and where they are said not to be."""

import json

import pytest

from sft.errors import UserError
from sft.eval.suites import read

CASE = '  - {id: a, kind: success, prompt: "p", expect: {equals: "x"}}\n'


def written(tmp_path, text, name="suite.yaml") -> str:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def want(text: str) -> str:
    return f"cases:\n  - id: a\n    kind: success\n    prompt: p\n    expect:\n      {text}\n"


def have(text: str) -> str:
    return f"cases:\n  - id: a\n    kind: success\n    {text}\n    expect: {{equals: x}}\n"


BAD = {
    "empty file": ("", ": empty"),
    "comment alone": ("# nothing\n", ": empty"),
    "not UTF-8": (b"cases:\n  - \xff\n", ":2: not UTF-8"),
    "not YAML": ("cases:\n  - {id: a\n", ":3: not YAML"),
    "two documents": ("cases: []\n---\ncases: []\n", ":2: not YAML"),
    "control character": ("cases: \x01\n", ":1: U+0001 is no"),
    "tag": ("cases: !!python/name:os.system\n", ":1: not YAML"),
    "alias in itself": ("cases: &a\n  - *a\n", ":1: an alias inside"),
    **{
        f"tag that does not fit: {value}": (
            want(f"contains: {value}"),
            f":6: {value.partition(' ')[2].strip(chr(34))!r}: put it in quotes to make it text, "
            f"and leave out the tag {value.partition(' ')[0]}.",
        )
        for value in ('!!int "_"', '!!int ""', '!!bool "xyz"', '!!timestamp "x"', '!!float "_"')
    },
    "half a pair": (want('contains: "\\uD800"'), ":6: contains: half of a surrogate"),
    "half a pair in a schema": (
        want('json_schema: {pattern: "\\uD800"}'),
        ":6: pattern: half of a surrogate",
    ),
    "aliases of aliases": (
        "description: &a [x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{key}: &{new} [{', '.join(['*' + old] * 20)}]\n"
            for key, new, old in zip(
                ("system", "refusals", "ignore_case", "ignore_space", "max_new_tokens"),
                "bcdef",
                "abcde",
                strict=True,
            )
        )
        + f"cases:\n{CASE}",
        "aliases that stand for more than 1,000,000 values",
    ),
    "no mapping": ("- a\n", ":1: expected the suite as a mapping, found a list"),
    "no cases": ("system: s\n", ":1: no cases"),
    "empty cases": ("system: s\ncases: []\n", ":2: no cases"),
    "cases no list": ("cases: 3\n", ":1: cases: expected a list, found a number"),
    "unknown of suite": (
        f"sytem: s\ncases:\n{CASE}",
        ":1: the suite has no key 'sytem'. Did you mean 'system'?",
    ),
    "unknown of case": (have("promt: p"), ":4: a case has no key 'promt'. Did you mean 'prompt'?"),
    "unknown check": (
        want("contain: x"),
        ":6: expect has no key 'contain'. Did you mean 'contains'?",
    ),
    "key twice": (have("prompt: p\n    prompt: q"), ":5: 'prompt' is given twice"),
    "id twice": (f"cases:\n{CASE}{CASE}", ":3: id 'a' is that of"),
    "no id": ("cases:\n  - {kind: success}\n", ":2: the case has no id"),
    "id a number": (
        f"cases:\n{CASE.replace('id: a', 'id: 1')}",
        ":2: id: expected text, found a number",
    ),
    "kind": (f"cases:\n{CASE.replace('success', 'sucess')}", "Did you mean 'success'?"),
    "no prompt": (have("note: n"), ":2: expected prompt or turns, found neither"),
    "prompt and turns": (have("prompt: p\n    turns: []"), "found both"),
    "blank prompt": (have("prompt: ' '"), ":4: prompt: no text"),
    "turns end with the model": (
        have("turns: [{role: user, text: a}, {role: model, text: b}]"),
        ":4: turns ends with 'model', expected 'user' last",
    ),
    "two users": (
        have("turns: [{role: user, text: a}, {role: user, text: b}]"),
        ":4: turns[1].role is 'user', expected 'model'",
    ),
    "role": (have("turns: [{role: assistant, text: a}]"), ":4: role 'assistant': expected one of"),
    "turn without text": (have("turns: [{role: user}]"), ":4: the turn has no text"),
    "no turn": (have("turns: []"), ":4: turns has no turns"),
    "empty expect": (
        "cases:\n  - {id: a, kind: success, prompt: p, expect: {}}\n",
        ":2: expect: empty",
    ),
    "unquoted date": (
        want("equals: 2021-03-04"),
        ":6: equals: expected text, found a date. Put it",
    ),
    "unquoted impossible date": (want("equals: 2021-02-31"), ":6: '2021-02-31': put it in quotes"),
    "empty list": (want("contains: []"), ":6: contains: an empty list"),
    "number in a list": (want("contains: [a, 3]"), ":6: contains: expected text, found a number"),
    "bad regex": (want("regex: '(a'"), ":6: regex: '(a' is no regular"),
    "bad regex in a list": (want("not_regex:\n        - a\n        - '[b'"), ":8: not_regex: '[b'"),
    "bad refusals": (f"refusals: ['(']\ncases:\n{CASE}", ":1: refusals: '(' is no regular"),
    "refuses": (want("refuses: 'yes'"), ":6: refuses: expected true or false, found text"),
    "schema type": (want("json_schema: {type: objekt}"), ":6: json_schema: $.type: 'objekt'"),
    "schema pattern": (want("json_schema: {pattern: '('}"), ":6: json_schema: $.pattern"),
    "schema missing": (want("json_schema: none.json"), "none.json: No such file"),
    "schema no JSON": (want("json_schema: suite.yaml"), ":6: json_schema: "),
    "schema a number": (want("json_schema: 3"), ":6: json_schema: expected a schema"),
    "schema with a date": (
        want("json_schema: {const: 2021-03-04}"),
        ":6: json_schema: a date in it",
    ),
    "schema elsewhere": (
        want("json_schema: {$ref: 'https://example.com/s'}"),
        "'https://example.com/s' leads nowhere",
    ),
    "schema to nothing": (
        want("json_schema: {items: {$ref: '#/$defs/a'}}"),
        "'#/$defs/a' leads nowhere",
    ),
    "flag": (f"ignore_case: 1\ncases:\n{CASE}", ":1: ignore_case: expected true or false"),
    "cap": (
        f"max_new_tokens: 0\ncases:\n{CASE}",
        ":1: max_new_tokens: expected a whole number above 0",
    ),
    "cap true": (f"max_new_tokens: true\ncases:\n{CASE}", ":1: max_new_tokens: expected"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_and_where(tmp_path, name):
    text, message = BAD[name]
    with pytest.raises(UserError) as error:
        read.load(written(tmp_path, text))
    assert message in str(error.value).replace("suite.yaml", "") and "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "suite.yaml"))


ROW = '{"id": "a", "kind": "success", "prompt": "p", "expect": {"equals": "x"}}\n'
BAD_LINES = {
    "half a pair in a schema": (
        ROW.replace('"equals": "x"', '"json_schema": {"ty\\ud800pe": 1}'),
        "half of a surrogate",
    ),
    "half a pair as a key": (ROW.replace('"prompt"', '"prompt\\ud800"'), "half of a surrogate"),
    "not JSON": (f"{ROW}{{", ":2: not JSON (column 2"),
    "key twice": ('\n{"id": "a", "id": "b"}\n', ":2: 'id' is given twice"),
    "id twice": (f"{ROW}\n{ROW}", ":3: id 'a' is that of"),
    "unknown": (ROW.replace("prompt", "promt"), ":1: a case has no key 'promt'"),
    "empty": ("\n", ": no cases"),
    "settings alone": ('{"suite": {"system": "s"}}\n', ": no cases"),
    "settings no object": ('{"suite": 3}\n', ":1: suite: expected an object"),
    "cases in settings": ('{"suite": {"cases": []}}\n', ":1: suite: cases are"),
    "unknown setting": (
        f'{{"suite": {{"sistem": "s"}}}}\n{ROW}',
        "'sistem'. Did you mean 'system'?",
    ),
    "half a pair": (ROW.replace('"p"', '"\\ud83d"'), ":1: prompt: half of a surrogate"),
    "a list": ("[1]\n", ":1: expected a case as a mapping, found a list"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_what_is_wrong_in_lines(tmp_path, name):
    text, message = BAD_LINES[name]
    with pytest.raises(UserError) as error:
        read.load(written(tmp_path, text, "suite.jsonl"))
    assert message in str(error.value).replace("suite.jsonl", "")


@pytest.mark.parametrize(
    "names, message",
    [
        ("", "config.eval.suites is not set"),
        ("a.yaml,", "a name between commas is empty"),
        ("none.yaml", "none.yaml: No such file"),
        ("suite.txt", "ends in .yaml, .yml or .jsonl, not in '.txt'"),
        (".yaml", "results are kept by this name"),
    ],
)
def test_files(names, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        read.listed(names)


def test_two_of_one_name(tmp_path):
    paths = [written(tmp_path, f"cases:\n{CASE}", "s.yaml"), written(tmp_path, ROW, "s.jsonl")]
    with pytest.raises(UserError, match="results are kept by that name"):
        read.listed(",".join(paths))


def test_yaml_and_lines_are_the_same_suite(tmp_path):
    settings = {"system": "s", "max_new_tokens": 9, "ignore_case": True, "refusals": ["no"]}
    schema = {"$defs": {"a": {"type": "integer"}}, "$ref": "#/$defs/a"}
    turns = [{"role": r, "text": t} for r, t in (("user", "a"), ("model", "b"), ("user", "c"))]
    cases = [
        {"id": "1", "kind": "failure", "prompt": "p", "expect": {"refuses": True}},
        {"id": "2", "kind": "boundary", "turns": turns, "expect": {"json_schema": schema}},
        {"id": "3", "kind": "success", "prompt": "p", "system": None, "expect": {"judge": "good"}},
    ]
    lines = "".join(json.dumps(line) + "\n" for line in [{"suite": settings}, *cases])
    of_lines = read.load(written(tmp_path, lines, "x.jsonl"))
    of_yaml = read.load(written(tmp_path, json.dumps(settings | {"cases": cases}), "x.yaml"))
    assert [case.key for case in of_lines.cases] == [case.key for case in of_yaml.cases]
    assert (of_yaml.max_new_tokens, of_lines.max_new_tokens) == (9, 9)
    assert [case.system for case in of_yaml.cases] == ["s", "s", None]
    assert [turn.text for turn in of_yaml.cases[1].conversation.turns] == ["a", "b", "c"]
    assert [case.where.rpartition(":")[2] for case in of_lines.cases] == ["2", "3", "4"]


def test_the_key_knows_what_is_asked_and_expected(tmp_path):
    (tmp_path / "s.json").write_text('{"type": "integer"}')
    text = "ignore_case: false\nrefusals: [nope]\ncases:\n  - id: a\n    kind: success\n"
    text += "    prompt: p\n    expect: {refuses: true, json_schema: s.json}\n"

    def key(changed: str) -> str:
        return read.load(written(tmp_path, changed)).cases[0].key

    changes = [
        ("false", "true"),
        ("[nope]", "[non]"),
        ("success", "failure"),
        ("prompt: p", "prompt: q"),
    ]
    keys = {key(text), *(key(text.replace(*change)) for change in changes)}
    (tmp_path / "s.json").write_text('{"type": "number"}')
    assert len(keys | {key(text)}) == 6
    assert key(text.replace("cases", "# a remark\ncases")) == key(text)
