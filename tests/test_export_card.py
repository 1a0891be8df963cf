"""The card, and what a run was asked with in every format: nothing is lost, nothing is private."""

import json
import re
import types

import pytest
import tiny_run
import tokenizers
import yaml
from go_template import render as ollama
from test_export_layouts import make

from sft import config as configs
from sft import session
from sft.data.chat import encoding
from sft.data.sets import loading
from sft.data.tokenizer.sentencepiece import gguf_metadata
from sft.export import base, card, chat_template, formats, peft, use
from sft.model import specs
from sft.run import directory

registered = tiny_run.registered
SYSTEM, TEMPLATE = "Say {{ x }}\n'next'.", "Letters: {prompt}\n|"
SECRET = "alice-at-home"


@pytest.fixture(scope="module")
def framed(tmp_path_factory):
    """A run whose rows all bring one system instruction, and its exports in all formats."""
    project = tiny_run.build(
        tmp_path_factory.mktemp(SECRET),
        {"data.reading.template": TEMPLATE, "data.max_length": 64, "train.epochs": 1},
    )
    for name, count in tiny_run.SIZES.items():
        rows = [
            {
                "systemInstruction": {"parts": [{"text": SYSTEM}]},
                "contents": [
                    {"role": "user", "parts": [{"text": row["input_text"]}]},
                    {"role": "model", "parts": [{"text": row["output_text"]}]},
                ],
            }
            for row in tiny_run.toy_rows(name, count)
        ]
        tiny_run.write_rows(project.path / f"{name}.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(specs.SPECS, tiny_run.SPEC.name, tiny_run.SPEC)
        assert project.main("train", "run") == 0
        report = project.path / "run" / "data" / "report.json"
        counts = json.loads(report.read_text())
        first = f"{project.path}/train.jsonl:3"
        counts["sets"]["train"]["untrained"] = {"rows": 2, "first": first}  # of which a card warns
        report.write_text(json.dumps(counts))
        assert project.main("export", "run", f"--format={','.join(formats.FORMATS)}") == 0
    return project


@pytest.fixture
def out(framed):
    return framed.path / "run" / "export"


def asked(framed):
    """The test prompts as they are typed, and their ids."""
    config = directory.stored_config(framed.path / "run")
    tokenizer = session.tokenizer(config, tiny_run.SPEC)
    (test,) = loading.Sets(config, tiny_run.SPEC, tokenizer).tests().values()
    prompts = loading.prompts(config, tiny_run.SPEC, tokenizer, test.conversations)
    texts = [row["input_text"] for row in tiny_run.toy_rows("test", tiny_run.SIZES["test"])]
    messages = [[{"role": "user", "content": text}] for text in texts]
    return tokenizer, list(zip(messages, (ids.tolist() for ids in prompts), strict=True))


def test_prompts_are_those_that_were_scored(framed, out):
    _, prompts = asked(framed)
    given = gguf_metadata(str(out / "gguf" / "model.gguf"))["tokenizer.chat_template"]
    modelfile = (out / "gguf" / "Modelfile").read_text()
    written = tokenizers.Tokenizer.from_file(str(out / "peft" / "tokenizer.json"))
    for name in ("peft", "safetensors", "keras", "gguf"):
        assert (out / name / "chat_template.jinja").read_text() == given
        if name != "gguf":
            told = json.loads((out / name / "tokenizer_config.json").read_text())
            assert told["chat_template"] == given
    assert len(prompts) == tiny_run.SIZES["test"]
    for messages, ids in prompts:
        text = chat_template.render(given, messages, add_generation_prompt=True)
        assert written.encode(text, add_special_tokens=False).ids == ids
        assert f"<bos>{ollama(modelfile, messages)}" == text
    assert "SYSTEM" in modelfile


def test_the_card_says_what_is_put_around_a_prompt(framed, out):
    tokenizer, prompts = asked(framed)
    for name in formats.FORMATS:
        text = (out / name / "README.md").read_text()
        shown = text.split("## Prompts")[1].split("## Scores")[0]
        assert f"```\n{SYSTEM}\n```" in shown and f"```\n{TEMPLATE}\n```" in shown
        scope = {}
        code = re.search(r"```python\n(.*?)```", shown, re.S)[1]
        exec(code.replace('"..."', repr(prompts[0][0][0]["content"])), scope)
        ids = [2, *encoding.unspell(marked(scope["prompt"].removeprefix("<bos>")), tokenizer)]
        assert ids == prompts[0][1]


def marked(text):
    return re.sub("(<(start|end)_of_turn>)", rf"{encoding.MARK}\1", text)


def test_nothing_private_is_published(framed, out):
    places = [SECRET, str(framed.path), str(framed.path.parent), ".safetensors."]
    for file in (file for file in out.rglob("*") if file.is_file()):
        content = file.read_bytes()
        assert [place for place in places if place.encode() in content] == [], file


def test_the_head_and_the_settings(out):
    text = (out / "safetensors" / "README.md").read_text()
    assert "rows without a trained token: 2 of train (the first: train.jsonl:3)" in text
    head = yaml.safe_load(text.split("---")[1])
    assert head == {
        "license": "gemma",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["gemma", "sft", "lora"],
    }
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \| `[^|]*` \|$", text, re.M))
    assert rows["data.reading.template"] == '`"Letters: {prompt}\\n\\|"`'
    assert rows["data.train"] == '`"train.jsonl"`' and rows["model.dtype"] == '`"float32"`'
    assert rows["train.epochs"] == "`1`" and "data.cache" not in rows
    assert "rest is as by default" not in text
    assert "`weights.safetensors` (safetensors, float32), computed in float32, with" in text


def test_a_base_model_without_a_name(framed, out, capsys):
    told = json.loads((out / "peft" / peft.CONFIG).read_text())
    assert told["base_model_name_or_path"] == base.PLACEHOLDER
    text = (out / "peft" / "README.md").read_text()
    assert 'from_pretrained("BASE_MODEL")' in text
    assert "`BASE_MODEL` stands for the base model, whose name is not known" in text
    words = ["--format=peft", "--overwrite"]
    assert framed.main("export", "run", *words) == 0
    said = capsys.readouterr().out
    assert (
        "note: The base model's name on Hugging Face is not known: config.model.weights is weig"
        in said
    )
    assert framed.main("export", "run", *words, "--base=google/gemma-3-270m") == 0
    assert "note:" not in capsys.readouterr().out
    told = json.loads((out / "peft" / peft.CONFIG).read_text())
    assert told["base_model_name_or_path"] == "google/gemma-3-270m"
    text = (out / "peft" / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "google/gemma-3-270m"
    assert 'from_pretrained("google/gemma-3-270m")' in text and "BASE_MODEL" not in text


def test_what_is_lost_of_a_prompt_is_said(tmp_path):
    tuned = make(tmp_path, **{"data.reading.template": "{prompt} in {language}"})
    text = use.prompts(tuned, "The chat template")
    assert "('{prompt} in {language}') is made of other columns" in text
    assert "The chat template writes the rest of a prompt as in training." in text
    assert 'prompt = "<bos><start_of_turn>user\\n" + question + "<end_of_turn>' in text


def test_texts_that_end_an_answer_are_said(tmp_path):
    text = use.prompts(make(tmp_path, **{"eval.stop": r"\n,Q:"}), "The chat template")
    assert 'or before the first of `stop = ["\\n", "Q:"]`' in text
    assert "stop" not in use.prompts(make(tmp_path), "The chat template")


def test_cells_of_a_table():
    assert card._cell("a|b`c``d") == '```"a\\|b`c``d"```'
    assert card._cell("a\nb") == '`"a\\nb"`' and card._cell(None) == "–"


@pytest.mark.parametrize("name", list(formats.FORMATS))
@pytest.mark.parametrize("dora", [False, True])
def test_what_is_said_of_adapters(tmp_path, name, dora):
    """DoRA's are for PEFT alone: no other library is named with them."""
    tuned = make(tmp_path, **{"lora.dora": dora})
    text = formats.get(name).use(tuned, base.Base("google/gemma-3-270m", "x.gguf", "GGUF, Q8_0"))
    assert ("vllm serve" in text) == (name == "safetensors" or (name == "peft" and not dora))
    assert ("which vLLM does not load" in text) == (name == "peft" and dora)
    has_some = name == "peft" if dora else name in ("orbax", "gguf")
    assert ("dapters" in text) == has_some


@pytest.mark.parametrize(("rank", "most"), [(1, 1), (3, 8), (16, 16), (33, 64), (512, 512)])
def test_what_vllm_is_told(tmp_path, rank, most):
    tuned = make(tmp_path, **{"lora.rank": rank})
    origin = base.Base("a/b", "x", "y")
    assert f"vllm serve a/b --enable-lora --max-lora-rank {most} " in use.of_peft(tuned, origin)
    greedy = """--override-generation-config '{"temperature": 0}'"""  # vLLM's own is 1
    assert greedy in use.of_peft(tuned, origin) and greedy in use.of_safetensors(tuned, origin)
    tuned.config.eval.temperature = 0.5
    assert "--override" not in use.of_peft(tuned, origin) + use.of_safetensors(tuned, origin)
    tuned.config.lora.rank = 513
    assert "vllm" not in use.of_peft(tuned, origin)


@pytest.mark.parametrize(
    ("stored", "is_quantised"),
    [("GGUF, Q4_K_M", True), ("GGUF, IQ4_XS", True), ("GGUF, BF16", False), ("Orbax, int4", False)],
)
def test_which_weights_were_scored(stored, is_quantised):
    config = configs.default()
    origin = base.Base("google/gemma-3-270m", "x.gguf", stored)
    assert origin.is_quantised == is_quantised
    said = card._weights(types.SimpleNamespace(config=config, adapters={}), origin)
    assert f"`x.gguf` ({stored}{', dequantised' * is_quantised}), computed in bfloat16." in said
    assert ("The published `google/gemma-3-270m` has other weights" in said) == is_quantised


def test_how_scored_answers_were_drawn():
    """By what an evaluation says of itself; one of an earlier version says less."""
    plain = {"count": 4}
    metrics = {"exact_match": {"value": 0.25}, "accuracy": {"value": 0.5}}
    more = {
        "count": 4,
        "cut": 3,
        "primary": "accuracy",
        "constant": {"majority": {"metrics": metrics}, "random": {"metrics": {}}},
        "settings": {"eval.temperature": 0.5, "eval.stop": "a,b"},
    }
    run = types.SimpleNamespace(
        config=dict(configs.flatten(configs.default())),
        sets=["one", "two", "three"],
        eval=lambda arm, name: {"one": plain, "two": more}.get(name),
    )
    assert card._answers(run, "best").splitlines() == [
        "* one: greedy answers of at most 32 tokens",
        "* two: answers drawn at temperature 0.5 of at most 32 tokens, ended by the texts `a,b` "
        "too, the metric of the set is accuracy, the most frequent answer alone would score 50.0 %",
    ]
