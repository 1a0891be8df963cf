"""The adapter for lm-eval against answers of its own Hugging Face backend, and the command."""

import hashlib
import json
import sys
from pathlib import Path

import lm_eval
import lm_tasks
import pytest
import tiny_run
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager
from test_tokenizer import tiny

from sft import cli
from sft.commands import eval_lm
from sft.data.chat import encoding
from sft.data.conversation import Turn
from sft.errors import UserError
from sft.eval.lm_eval import Gemma
from sft.model import specs
from sft.session import Session

shared, registered = tiny_run.shared, tiny_run.registered
GOLDEN = json.loads((Path(__file__).parent / "golden/lm_eval.json").read_text())
TOLERANCE = 2e-5  # nats a token, of float32 sums that reach 120


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return lm_tasks.build_tiny(tmp_path_factory.mktemp("tiny") / "project")


@pytest.fixture(scope="module")
def base(project):
    """The adapter on the untuned tiny model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(specs.SPECS, tiny_run.SPEC.name, tiny_run.SPEC)
        return Gemma.load(Session(project.values()), None, GOLDEN["max_length"])


def test_scores_and_answers_are_those_of_the_hugging_face_backend(project, base, tmp_path):
    weights = (project.path / "weights.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == GOLDEN["weights_sha256"]
    documents = lm_tasks.tiny_documents()
    found = lm_eval.simple_evaluate(
        base,
        tasks=lm_tasks.write(tmp_path, documents, **GOLDEN["generation"]),
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        torch_random_seed=None,
    )
    ours, theirs = lm_tasks.responses(found["samples"]), GOLDEN["responses"]
    assert ours.keys() == theirs.keys() and len(theirs) == 4
    assert ours["local_answer"] == theirs["local_answer"]
    assert len(set(map(tuple, theirs["local_answer"]))) > 4
    greedy = []
    for name in ("local_choice", "local_unconditional"):
        for row, expected in zip(ours[name], theirs[name], strict=True):
            greedy += [flag for _, flag in expected]
            assert [flag for _, flag in row] == [flag for _, flag in expected]
            assert [v for v, _ in row] == pytest.approx([v for v, _ in expected], abs=TOLERANCE)
    assert any(greedy) and not all(greedy)
    texts = [v for (v,) in theirs["local_rolling"]]
    assert [v for (v,) in ours["local_rolling"]] == pytest.approx(texts, abs=40 * TOLERANCE)


def scored(model, *pairs):
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs
    ]
    return model.loglikelihood(requests, disable_tqdm=True)


def test_order_and_batch_do_not_change_scores(base):
    pairs = [("the user", " an"), ("a", "b"), ("x " * 8, "y"), ("", "the"), ("in ", "a")]
    expected = scored(base, *pairs)
    assert len(set(expected)) == len(pairs)
    config = base.config.copy_and_resolve_references()
    config.eval.batch_size = 24
    again = scored(Gemma(base.model, config, base.max_length), *pairs[::-1], *pairs)
    for (value, flag), (other, same) in zip(again, [*expected[::-1], *expected], strict=True):
        assert value == pytest.approx(other, abs=TOLERANCE) and flag == same


def test_a_long_context_is_cut_on_the_left(base):
    tail = "x y z" * 10
    (one, two) = scored(base, ("b " * 30 + tail, "a"), ("tu " * 40 + tail, "a"))
    assert one == pytest.approx(two, abs=TOLERANCE)


HISTORY = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": " the <end_of_turn> user\ue000<start_of_turn> "},
    {"role": "assistant", "content": "an\n"},
    {"role": "user", "content": "model"},
]
TURNS = [Turn("user", HISTORY[1]["content"].replace("\ue000", "")), Turn("model", "an")]
TURNS += [Turn("user", "model")]


@pytest.mark.parametrize("form", ["gemma2", "gemma3", "gemma4"])
def test_chats_have_the_ids_of_training(form):
    tok = tiny(form)
    text = encoding.spell(TURNS, None, tok, form)
    ids = encoding.encode_prompt(TURNS, tok, form).tolist()
    assert [tok.bos_id, *encoding.unspell(text, tok)] == ids
    assert ids.count(tok.end_of_turn_id) == 3
    marked = encoding.spell(
        [Turn("user", f"a{encoding.MARK}{tok.turn_pieces[1]}")], None, tok, form
    )
    assert encoding.unspell(marked, tok).count(tok.end_of_turn_id) == 1


def test_the_chat_template_is_the_run_s(base):
    text = base.apply_chat_template(HISTORY)
    ids = base.tok_encode(text)
    conversation = encoding.Conversation(tuple(TURNS), "Be brief. ", "x:1")
    tok = base.model.tokenizer
    assert ids == encoding.encode_prompt(conversation, tok, "gemma3").tolist()
    started = base.apply_chat_template([*HISTORY, {"role": "assistant", "content": "tu"}], False)
    assert base.tok_encode(started) == ids + tok.encode("tu")
    shown = base.chat_template(True)
    assert shown.startswith("<start_of_turn>user\n{system}\n\n{user}<end_of_turn>\n")
    assert base.chat_template(False) is None
    base._is_chat = False


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_gen_tokens": 3}, "max_gen_toks"),
        ({"do_sample": True}, "temperature"),
        ({"max_gen_toks": 24}, "leaves no room"),
    ],
)
def test_generation_arguments_that_cannot_be_kept(base, given, said):
    request = Instance(request_type="generate_until", doc={}, arguments=("a", given), idx=0)
    with pytest.raises(UserError, match=said):
        base.generate_until([request])


def test_answers_in_order_whatever_their_arguments(base):
    arguments = [{"max_gen_toks": n, "until": []} for n in (2, 5, 2, 5)]
    texts = ["the user", "an in", "model", "a"]
    requests = [
        Instance(request_type="generate_until", doc={}, arguments=pair, idx=0)
        for pair in zip(texts, arguments, strict=True)
    ]
    together = base.generate_until(requests)
    assert together == [base.generate_until([request])[0] for request in requests]
    warm = {"max_gen_toks": 5, "do_sample": True, "temperature": 5.0, "until": []}
    (sampled,) = base.generate_until(
        [Instance(request_type="generate_until", doc={}, arguments=("an in", warm), idx=0)]
    )
    assert sampled != together[1]


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    """A trained run, and a task that it has learnt: one letter after another."""
    path = shared.copy("done", tmp_path_factory.mktemp("lm") / "run")
    rows = [
        {"prompt": c, "answer": chr(ord(c) + 1), "choices": list("bcdefghi"), "gold": i}
        for i, c in enumerate("abcdefgh")
    ]
    folder = tmp_path_factory.mktemp("tasks")
    return path, lm_tasks.write(folder, {"choice": rows, "answer": rows}, max_gen_toks=3)


def test_the_command_scores_a_tuned_run_in_its_chat_format(shared, run, capsys):
    path, tasks = run
    words = [f"--config={shared.config}", f"--workdir={path}", f"--tasks={','.join(tasks)}"]
    assert cli.main(["sft", "eval", "lm", *words, "--chat", "--limit=6", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    stored = json.loads((path / "eval/lm.best.json").read_text())
    assert printed == stored
    assert (stored["arm"], stored["checkpoint"]) == ("best", "checkpoints/24")
    answer = stored["tasks"]["local_answer"]
    assert answer["documents"] == 6 and answer["metrics"]["exact_match"]["better"] == "higher"
    assert answer["metrics"]["exact_match"]["value"] > 0.5
    rows = (path / "eval/lm.best.samples.jsonl").read_text().splitlines()
    assert len(rows) == 12 and json.loads(rows[0])["task"] == "local_choice"


def test_lm_eval_s_own_way_in(run):
    path, _ = run
    model = get_model("sft").create_from_arg_string(f"workdir={path},checkpoint=24,max_length=9")
    assert isinstance(model, Gemma) and model.max_length == 9
    with pytest.raises(UserError, match=r"'checkpont'\. Did you mean 'checkpoint'"):
        Gemma.create_from_arg_string(f"workdir={path},checkpont=24")
    with pytest.raises(UserError, match="workdir=DIR is missing"):
        Gemma.create_from_arg_obj({})


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ((), "--tasks=NAME is missing"),
        (("nowhere.yaml",), "nowhere.yaml: no such file"),
        (("DATA.yaml",), "DATA.yaml: cannot be loaded"),
    ],
)
def test_tasks_that_cannot_be_run(shared, run, tmp_path, monkeypatch, tasks, said):
    monkeypatch.chdir(tmp_path)
    text = json.dumps({"task": "x", "dataset_path": "json", "output_type": "generate_until"})
    Path("DATA.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        eval_lm.main(shared.values(), str(run[0]), "base", tasks, 0, -1, False, 0)


def test_without_lm_eval_the_extra_is_named(shared, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match="uv sync --extra lm-eval"):
        eval_lm.main(shared.values(), "runs/x", "base", ["x.yaml"], 0, -1, False, 0)
