"""How an export is used: what the card tells, for each format, of loading and of prompts."""

import json
import re
from collections.abc import Callable

from sft.config.text import strings
from sft.data.chat import encoding
from sft.data.conversation import Turn
from sft.data.sets.framing import NOTHING
from sft.export import official
from sft.export.base import PLACEHOLDER, Base
from sft.export.tuned import Tuned

Use = Callable[[Tuned, Base], str]  # markdown
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes for --max-lora-rank
_QUESTION = "\ue001"  # stands for the question; of Unicode's private use, so in no text
_ASK = """\
tokenizer = transformers.AutoTokenizer.from_pretrained(".")
ids = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "..."}}],
    add_generation_prompt=True,
    return_dict=True,
    return_tensors="pt",
)
made = model.generate(**ids, max_new_tokens={most})
print(tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))"""


def of_peft(tuned: Tuned, base: Base) -> str:
    """The adapters on the base model, with PEFT and where they can be with vLLM."""
    parts = [
        _code(
            "python",
            "import peft\nimport transformers\n\n"
            f'base = transformers.AutoModelForCausalLM.from_pretrained("{base.shown}")\n'
            'model = peft.PeftModel.from_pretrained(base, ".")\n'
            'model.generation_config = transformers.GenerationConfig.from_pretrained(".")\n'
            + _ask(tuned),
        )
    ]
    if not base.name:
        parts.append(
            f"`{PLACEHOLDER}` stands for the base model, whose name is not known: `{base.file}`. "
            "Put its name on Hugging Face there, or the folder in which you have it; in "
            "`adapter_config.json` too, for `AutoPeftModelForCausalLM`."
        )
    if tuned.has_magnitudes:
        parts.append(
            "These are DoRA adapters, which vLLM does not load: serve merged weights "
            "(`sft export --format=safetensors`)."
        )
    else:
        rank = next((rank for rank in _RANKS if rank >= tuned.config.lora.rank), None)
        if rank:
            parts.append(
                _code(
                    "sh",
                    f"vllm serve {base.shown} --enable-lora --max-lora-rank {rank} \\\n"
                    "  --lora-modules tuned=. --chat-template chat_template.jinja \\\n"
                    f"  --generation-config .{_greedy(tuned)}",
                )
            )
    return "\n\n".join(parts)


def of_safetensors(tuned: Tuned, base: Base) -> str:
    """The merged weights, with Transformers and vLLM."""
    del base
    load = 'import transformers\n\nmodel = transformers.AutoModelForCausalLM.from_pretrained(".")\n'
    return (
        f"{_code('python', load + _ask(tuned))}\n\n{_code('sh', f'vllm serve .{_greedy(tuned)}')}"
    )


def of_keras(tuned: Tuned, base: Base) -> str:
    """The merged weights, with Keras-Hub, and LiteRT's converter."""
    del base
    sampler, drawn = '"greedy"', tuned.config.eval
    if drawn.temperature:
        more = f"k={drawn.top_k or None}, temperature={drawn.temperature}"
        sampler = f"keras_hub.samplers.TopPSampler(p={drawn.top_p}, {more})"
    made = _code(
        "python",
        'import keras_hub\n\nmodel = keras_hub.models.CausalLM.from_preset(".")\n'
        f"model.compile(sampler={sampler})\n{_assigned(tuned)}\n"
        "print(model.generate(prompt, strip_prompt=True))",
    )
    return f"{made}\n\n`litert-torch export_hf . DIR` makes a `.litertlm` of it."


def of_orbax(tuned: Tuned, base: Base) -> str:
    """The merged weights, with the ``gemma`` package; adapters where it knows their kind."""
    del base
    parts = [
        _code(
            "python",
            "import pathlib\n\nfrom gemma import gm\n\n"
            'params = gm.ckpts.load_params(pathlib.Path("merged").absolute())\n' + _assigned(tuned),
        )
    ]
    if tuned.has_plain_adapters:
        rank = official.rank(tuned.adapters)
        parts.append(
            f"`adapters` are for `gm.nn.LoRA(rank={rank}, model=…)`: `gemma.peft.merge_params("
            "base, orbax.checkpoint.StandardCheckpointer().restore(…))`."
        )
    return "\n\n".join(parts)


def of_gguf(tuned: Tuned, base: Base) -> str:
    """The model, with llama.cpp and Ollama; adapters where llama.cpp knows their kind."""
    del base
    sampling = tuned.config.eval
    how = f"--temp {sampling.temperature:g}"
    if sampling.temperature:
        how += f" --top-k {sampling.top_k} --top-p {sampling.top_p:g} --min-p 0"
    parts = [
        _code(
            "sh",
            f"llama-cli -m model.gguf --jinja {how}\n"
            "ollama create NAME -f Modelfile && ollama run NAME",
        )
    ]
    if tuned.has_plain_adapters:
        parts.append(
            "The adapters on the base model: `llama-cli -m BASE.gguf --lora adapter.gguf --jinja "
            f"--chat-template-file chat_template.jinja {how}`."
        )
    return "\n\n".join(parts)


def prompts(tuned: Tuned, carrier: str) -> str:
    """What training put around a conversation, what does so now, and what ends an answer.

    Args:
      carrier: the part of the export that does, as in "the chat template"; ``""`` = none.
    """
    framing, parts = tuned.framing, []
    if framing.system:
        parts.append("The system instruction of a conversation that brings none is")
        parts.append(_code("", framing.system))
    if framing.around != NOTHING:
        parts.append("The first prompt of a conversation stands in this template:")
        parts.append(_code("", "{prompt}".join(framing.around)))
    parts += framing.lost
    what = "the rest of a prompt" if framing.lost else "prompts"
    by = f"{carrier} writes {what} as in training. " if carrier else ""
    parts.append(f"{by}One question is sent as")
    parts.append(_code("python", _assigned(tuned, "<bos>")))
    if stops := strings(tuned.config.eval.stop):
        shown = json.dumps(stops, ensure_ascii=False)
        parts.append(
            f"An answer ends at its end of turn or before the first of `stop = {shown}`. A server "
            "of vLLM, llama.cpp or Ollama takes that with each request; elsewhere the answer is "
            "cut there."
        )
    return "\n\n".join(parts)


def _greedy(tuned: Tuned) -> str:
    """For vLLM, which draws at temperature 1 where generation_config.json has no temperature."""
    if tuned.config.eval.temperature:
        return ""
    return """ --override-generation-config '{"temperature": 0}'"""


def _ask(tuned: Tuned) -> str:
    return _ASK.format(most=tuned.config.eval.max_new_tokens)


def _assigned(tuned: Tuned, bos: str = "") -> str:
    """Lines of Python that make the prompt of one question; most libraries put ``<bos>`` first."""
    framing = tuned.framing
    turns = [Turn("user", framing.prompt(_QUESTION))]
    text = encoding.spell(turns, framing.system or None, tuned.tokenizer, tuned.format_name)
    pieces = (bos + text.replace(encoding.MARK, "")).split(_QUESTION)
    shown = (json.dumps(piece, ensure_ascii=False) for piece in pieces)
    return 'question = "..."\nprompt = ' + " + question + ".join(shown)


def _code(language: str, text: str) -> str:
    """A block of code, in a fence longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
