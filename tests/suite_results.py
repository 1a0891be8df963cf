"""Suites and their results, from answers that are made up."""

import tiny_run

from sft.eval.suites import read, score


def suite_of(tmp_path, rows, settings=None, name="toy"):
    lines = [{"suite": settings}] if settings else []
    lines += [{"id": f"c{i}", "kind": "success", "prompt": f"p{i}"} | r for i, r in enumerate(rows)]
    return read.load(str(tiny_run.write_rows(tmp_path / f"{name}.jsonl", lines)))


def result_of(suite, answers, arm, judge=None):
    rows = score.rows(suite, answers, judge)
    about = {"arm": arm, "suite": suite.name, "file": suite.path, "fingerprint": "f"}
    about |= {"description": suite.description}
    return about | score.summary(rows) | {"cases": rows}
