"""The benches of the planner, without compiling: rows, tables, going on where one stopped."""

import json
import sys

import pytest
from tiny_run import ROOT

from sft import topology
from sft.model import specs

sys.path.insert(0, str(ROOT / "scripts/bench"))

import plan
import planning_sheet

OURS = {
    "weights": 0.2, "adapters": 0.1, "temporaries": 1.0, "code": 0.0, "total": 1.3, "limit": 15.75,
    "fits": True, "compile_seconds": 60.0,
}  # fmt: skip


def test_rows_are_possible():
    for model, name, rows, _, fsdp in plan.ROWS.values():
        assert specs.get(model) and topology.get(name).devices % fsdp == 0
        assert rows % topology.get(name).devices == 0
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
    wanted = [("m", "v5e-1", 8), ("m", "v5e-4", 8), ("m", "v6e-1", 8)]
    answers = {
        wanted[0]: {"fits": True, "total": 1.25, "limit": 15.75},
        wanted[1]: {"fits": False, "total": 20.0, "limit": 15.75, "at_least": True},
        wanted[2]: {"error": "cannot be cut"},
    }
    asked = []

    def compile_one(cell):
        asked.append(cell)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return answers[cell]

    with pytest.raises(KeyboardInterrupt):
        planning_sheet.fill(tmp_path, wanted, compile_one)
    with (tmp_path / "cells.jsonl").open("a") as file:
        file.write('{"model": "cut off')
    planning_sheet.fill(tmp_path, wanted, compile_one)
    assert asked == [wanted[0], wanted[1], wanted[1], wanted[2]]
    rows = [
        json.loads(s) for s in (tmp_path / "cells.jsonl").read_text().splitlines() if "found" in s
    ]
    assert len(rows) == 3
    last = (tmp_path / "sheet.md").read_text().splitlines()[2]
    assert last == "| m | 8 | **1.2 / 15.8** | >20.0 / 15.8 | — |"
