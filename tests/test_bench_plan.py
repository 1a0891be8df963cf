"""The benches of the planner, without compiling: rows, tables, going on where one stopped."""

import sys

import pytest
from tiny_run import ROOT

from sft.errors import UserError
from sft.mesh import slices
from sft.model import specs

sys.path.insert(0, str(ROOT / "scripts/bench"))

import cycles
import plan
import planning_sheet

OURS = {
    "weights": 0.2, "adapters": 0.1, "temporaries": 1.0, "code": 0.0, "total": 1.3, "limit": 15.75,
    "fits": True, "compile_seconds": 60.0,
}  # fmt: skip


def test_rows_are_possible():
    for model, name, rows, _, fsdp in plan.ROWS.values():
        assert specs.get(model) and slices.get(name).devices % fsdp == 0
        assert rows % slices.get(name).devices == 0
    assert set(plan.WITH_PEERS) <= set(plan.ROWS)


def test_summary_compares_with_the_best_peer_that_ran():
    peers = {"1b": {"a": {"temporaries": 4.0}, "b": {"temporaries": 3.0}, "c": {"error": "no"}}}
    found = plan.summary({"1b": OURS}, peers)
    assert set(found) == {"bench", "ours", "peers", "ratio", "unit", "detail"}
    assert found["ours"] == 1.0 and found["peers"] == {"a": 4.0, "b": 3.0}
    assert found["ratio"] == 3.0 and "row 1b" in found["unit"]
    assert plan.summary({"1b": OURS}, {})["ratio"] is None


def test_table_has_errors_and_numbers():
    text = plan.table({"1b": OURS, "4b": {"error": "exit code 1: gone"}}, {"1b": {}})
    assert "15.75" in text and "exit code 1: gone" in text and len(text.splitlines()) == 3


def test_the_sheet_goes_on_where_it_stopped(tmp_path):
    cells = planning_sheet.wanted(["gemma3_1b", "gemma2_2b"], ["v5e-1"], [32_768, 2048, 8192])
    assert ("gemma2_2b", "v5e-1", 32_768) not in cells and len(cells) == 5
    answers = [
        {"fits": True, "total": 1.25, "limit": 15.75},
        {"fits": False, "total": 20.0, "limit": 15.75, "at_least": True},
        {"error": "cannot be cut"},
        {"fits": True, "total": 2.0, "limit": 15.75},
    ]
    asked, path = [], tmp_path / "planning.jsonl"

    def compile_one(cell):
        asked.append(cell)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return answers[len(set(asked)) - 1]

    with pytest.raises(KeyboardInterrupt):
        planning_sheet.fill(path, cells, compile_one)
    with path.open("a") as file:
        file.write('{"model": "cut off')
    planning_sheet.fill(path, cells, compile_one)
    assert [n for *_, n in asked] == [2048, 8192, 8192, 2048, 8192]  # 32,768 was ruled out by 8,192
    assert planning_sheet.fill(path, cells, compile_one) == planning_sheet.done(path)
    rows = [
        line.split("|")[2:4]
        for line in planning_sheet.sheet(planning_sheet.done(path)).splitlines()
    ]
    assert rows[2:] == [
        [" ", " 15.75 "],
        [" 2,048 ", " — "],
        [" 8,192 ", " **2.0** "],
        [" 2,048 ", " **1.2** "],
        [" 8,192 ", " >20.0 "],
        [" 32,768 ", " no "],
    ]


def test_the_sheet_in_the_readme_is_that_of_the_cells(tmp_path):
    table = planning_sheet.sheet(planning_sheet.done(planning_sheet.CELLS))
    assert (
        f"{planning_sheet.START}\n{table}\n{planning_sheet.END}" in (ROOT / "README.md").read_text()
    )
    copy = tmp_path / "README.md"
    copy.write_text(f"a\n{planning_sheet.START}\nold\n{planning_sheet.END}\nb\n")
    planning_sheet.put("new", copy)
    assert copy.read_text() == f"a\n{planning_sheet.START}\nnew\n{planning_sheet.END}\nb\n"
    copy.write_text("nothing")
    with pytest.raises(UserError, match="expected the marks"):
        planning_sheet.put("new", copy)


PROGRAM = """\
HloModule jit__train, is_scheduled=true

%forward.1 (arg: (s32[], bf16[6,8])) -> (s32[], bf16[6,8]) {
  %fusion.1 = bf16[8,4]{1,0} fusion(%a), metadata={op_name="jvp()/while/dot"}, backend_config={"estimated_cycles":"100"}
  ROOT %t.1 = (s32[], bf16[6,8]) tuple(%a, %b)
}

%backward.2 (arg: (s32[], bf16[6,8])) -> (s32[], bf16[6,8]) {
  %kernel.1 = bf16[8,4]{1,0} custom-call(%a), frontend_attributes={kernel_metadata={
}}, backend_config={"estimated_cycles":"7"}
  %fusion.2 = (f32[8]{0}, bf16[8,4]{1,0}) fusion(%a), backend_config={"estimated_cycles":"250"}
}

%vocabulary.3 (arg: (s32[], f32[4])) -> (s32[], f32[4]) {
  ROOT %fusion.3 = f32[4]{0} fusion(%a), backend_config={"estimated_cycles":"10"}
}

ENTRY %main.9 (p: bf16[6,8,2]) -> bf16[6,8,2] {
  %copy.1 = bf16[6,8,2]{1,2,0} copy(%p), backend_config={"estimated_cycles":"4000"}
  %while.1 = (s32[], bf16[6,8]) while(%x), condition=%c.1, body=%forward.1, metadata={op_name="jvp()/while"}
  %while.2 = (s32[], f32[4]) while(%y), condition=%c.2, body=%vocabulary.3, metadata={op_name="jvp()/while"}
  ROOT %while.3 = (s32[], bf16[6,8]) while(%z), condition=%c.3, body=%backward.2, metadata={op_name="transpose(jvp())/while"}
}
"""  # noqa: E501


def test_cycles_are_those_of_every_layer():
    found = cycles.operations(PROGRAM, layers=6)
    assert cycles.parts(found) == {"once": 4010, "forward": 600, "backward": 1500, "all": 6110}
    first, second, *_ = cycles.table(found, top=2).splitlines()[-2:]
    assert "copy.1 bf16[6,8,2]" in first and "backward" in second and "fusion.2" in second
    result = cycles.summary("4b", found)
    assert set(result) == {"bench", "ours", "peers", "ratio", "unit", "detail"}
    assert result["ours"] == 6110
