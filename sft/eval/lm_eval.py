"""Our models for lm-eval (EleutherAI's evaluation harness): any of its tasks on any arm of a run.

``sft eval lm`` is the command. In Python, importing this module makes it known to lm-eval::

    import sft.eval.lm_eval
    lm_eval.simple_evaluate(model="sft", model_args="workdir=runs/dates,checkpoint=best", …)

Texts become ids, and requests are cut and counted, as in lm-eval's own Hugging Face backend
(``lm_eval/models/huggingface.py`` in 0.4.13), so that scores can be compared with published ones:
``<bos>`` before every context, spaces at the end of a context moved to its continuation, too long
requests cut on the left. Two things differ. What looks like a control piece in a task's text is
text. And answers end at the end of a turn too, as those of a tuned model do.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.models.utils import postprocess_generated_text as cut
from ml_collections import ConfigDict

from sft import config as configs
from sft.data.batches import pipeline
from sft.data.chat import encoding
from sft.data.conversation import Turn
from sft.data.sets import loading
from sft.errors import UserError
from sft.eval import arms, harness
from sft.mesh import sharding
from sft.model import specs
from sft.model.decode import generate
from sft.run import directory as workdirs
from sft.run.progress import Progress
from sft.session import Session
from sft.train import validation

BUCKET = 32  # positions: requests are padded to a multiple of it
SCORED = 16_384  # positions scored at a time, which bounds the memory of long requests
UNKNOWN = 3  # the id of <unk>: a special piece, which the Hugging Face backend leaves out
KEYS = ("until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p")
Request = tuple[tuple[str, str] | None, list[int], list[int]]  # texts, context, continuation


@register_model("sft")
class Gemma(TemplateLM):
    """One arm of a run.

    Args:
      config: of the run; ``eval.batch_size`` is the number of rows at a time.
      max_length: tokens of a request, the first one not counted; ``None`` = the model's own.
    """

    def __init__(self, model: harness.Model, config: ConfigDict, max_length: int | None = None):
        super().__init__()
        self.model, self.config = model, config
        self.max_length = max_length or specs.CONTEXT[model.spec.family]
        self.max_gen_toks = 256  # where a task does not say; as in the Hugging Face backend
        self._format = loading.chat_format(config, model.spec)
        self._is_chat = False

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict, additional_config: dict | None = None) -> "Gemma":
        """From lm-eval's ``model_args``: ``workdir``, ``checkpoint`` (``best`` if not given),
        ``batch_size``, ``max_length``.

        Raises:
          UserError: another argument, no such run or checkpoint.
        """
        given = arg_dict | (additional_config or {})
        given = {key: value for key, value in given.items() if value is not None}
        known = ("workdir", "checkpoint", "batch_size", "max_length")
        for key in given:
            if key not in known:
                raise UserError(
                    f"model_args: no argument {key!r}.{configs.nearest(key, list(known))} "
                    f"Known: {', '.join(known)}."
                )
        if "workdir" not in given:
            raise UserError("model_args: workdir=DIR is missing, the directory of a run.")
        config = workdirs.stored_config(given["workdir"])
        config.eval.batch_size = int(given.get("batch_size", config.eval.batch_size))
        session = Session(config, given["workdir"], only_scores=True)
        _, step = arms.which(session.path, config, str(given.get("checkpoint", "best")))
        return cls.load(session, step, given.get("max_length"))

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict | None = None
    ) -> "Gemma":
        """The same from ``"workdir=…,checkpoint=…"``."""
        return cls.create_from_arg_obj(
            utils.simple_parse_args_string(arg_string), additional_config
        )

    @classmethod
    def load(cls, session: Session, step: int | None, max_length: int | None = None) -> "Gemma":
        """The checkpoint of that step, ``None`` = the base model."""
        return cls(arms.load(session, step), session.config, max_length)

    # Texts.

    @property
    def eot_token_id(self) -> int:
        return self.model.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        return self.model.tokenizer.bos_id

    @property
    def tokenizer_name(self) -> str:
        """Names what lm-eval keeps of requests: another name, other requests."""
        return f"sft-{self.model.tokenizer.fingerprint}-{self._format}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """What a conversation looks like, as lm-eval writes it into its results; none if off."""
        if not chat_template:
            return None
        return encoding.spell(
            [Turn("user", "{user}")], "{system}", self.model.tokenizer, self._format
        ).replace(encoding.MARK, "")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The format that the run is trained in. The result is for ``tok_encode`` alone.

        Args:
          add_generation_prompt: if not, the last message is the start of the answer.
        """
        self._is_chat = True
        history, system, started = list(chat_history), None, ""
        if history and history[0]["role"] == "system":
            system = history.pop(0)["content"]
        if history and not add_generation_prompt:
            started = history.pop()["content"].lstrip().replace(encoding.MARK, "")
        roles = {"user": "user", "assistant": "model"}
        turns = [Turn(roles.get(m["role"], m["role"]), m["content"]) for m in history]
        return encoding.spell(turns, system, self.model.tokenizer, self._format) + started

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        tok = self.model.tokenizer
        ids = encoding.unspell(string, tok) if self._is_chat else tok.encode(string)
        return ids if add_special_tokens is False else [tok.bos_id, *ids]

    # Scores.

    def _loglikelihood_tokens(
        self, requests: list, disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Nats of each continuation, and whether each of its tokens is the likeliest.

        Args:
          requests: of type ``Request``.
        """
        examples = [self._example(context, ids) for _, context, ids in requests]
        order = sorted(range(len(requests)), key=lambda i: -len(examples[i].tokens))
        progress = Progress(len(requests), "scoring", "request")
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        while order:
            length, rows = self._shape(len(examples[order[0]].tokens) - 1)
            chosen, order = order[:rows], order[rows:]
            blank: list[list[encoding.Example]] = [[]] * (rows - len(chosen))
            batch = pipeline.make_batch([[examples[i]] for i in chosen] + blank, length)
            steps, model = self.model.steps, self.model
            placed = validation.place(batch, steps)
            sums = jax.device_get(steps.score(model.trainable, model.frozen, placed))
            for row, i in enumerate(chosen):
                is_greedy = sums["correct"].total[row] == sums["correct"].weight[row]
                answers[i] = -float(sums["loss"].total[row]), bool(is_greedy)
                if (texts := requests[i][0]) is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, answers[i])
            progress.update(len(chosen))
        progress.close()
        return answers

    def _example(self, context: list[int], continuation: list[int]) -> encoding.Example:
        """A request as a training example whose continuation is the answer."""
        ids = np.array((context + continuation)[-(self.max_length + 1) :], np.int32)
        kinds = np.full(len(ids), encoding.PROMPT, np.uint8)
        kinds[len(ids) - len(continuation) :] = encoding.ANSWER
        return encoding.Example(ids, kinds)

    def _shape(self, positions: int) -> tuple[int, int]:
        """Length of the rows of a batch, and their number: few different ones."""
        steps = self.model.steps
        mesh = steps.batch_sharding.mesh
        assert isinstance(mesh, Mesh)
        groups = sharding.groups(mesh)
        length = generate.padded(positions, BUCKET)
        length = -(-length // steps.row_multiple) * steps.row_multiple
        rows = max(1, min(self.config.eval.batch_size, SCORED // length))
        return length, -(-rows // groups) * groups

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list[float]:
        """Nats of whole texts, cut into windows as long as the model reads."""
        windows: list[Request] = []
        counts = []
        for request in requests:
            found = utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            own = [(None, *utils.make_disjoint_window(window)) for window in found]
            windows, counts = windows + own, [*counts, len(own)]
        scores = iter(self._loglikelihood_tokens(windows))
        totals = []
        for request, count in zip(requests, counts, strict=True):
            totals.append(sum(next(scores)[0] for _ in range(count)))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, totals[-1])
        return totals

    # Answers.

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
        """Texts up to the first of the task's stop strings; requests alike are answered together.

        Raises:
          UserError: a generation argument that we do not have.
        """
        alike: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(i)
        answers = [""] * len(requests)
        progress = Progress(len(requests), "generating answers", "prompt")
        for members in alike.values():
            texts = [requests[i].args[0] for i in members]
            found = self._generate(texts, requests[members[0]].args[1], progress.update)
            for i, answer in zip(members, found, strict=True):
                answers[i] = answer
                self.cache_hook.add_partial("generate_until", requests[i].args, answer)
        progress.close()
        return answers

    def _generate(
        self, contexts: list[str], arguments: dict, on_batch: Callable[[int], object]
    ) -> list[str]:
        tok = self.model.tokenizer
        sampling, until = self._sampling(arguments)
        room = self.max_length - sampling.max_new_tokens
        prompts = [np.array(self.tok_encode(text)[-room:], np.int32) for text in contexts]

        def text(ids: list[int]) -> str:
            return tok.decode(i for i in ids if i < tok.vocab_size and i != UNKNOWN)

        answers = harness.sample(
            self.model,
            self.config,
            sampling,
            prompts,
            is_done=lambda ids: any(stop in text(ids) for stop in until),
            on_batch=on_batch,
        )
        return [cut(text(ids), until, None) for ids in answers]

    def _sampling(self, arguments: dict) -> tuple[generate.Sampling, list[str]]:
        """How to generate, and the strings at which an answer ends."""
        given: dict[str, Any] = dict(normalize_gen_kwargs(arguments, self.max_gen_toks))
        for key in given:
            if key not in KEYS:
                raise UserError(
                    f"generation_kwargs: no argument {key!r}.{configs.nearest(key, list(KEYS))} "
                    f"Known: {', '.join(KEYS)}."
                )
        if given["do_sample"] and not given.get("temperature"):
            raise UserError(
                "generation_kwargs: do_sample needs a temperature above 0. Give one, or set "
                "do_sample to false."
            )
        if not given["max_gen_toks"] < self.max_length:
            raise UserError(
                f"generation_kwargs: max_gen_toks = {given['max_gen_toks']} leaves no room for a "
                f"prompt in {self.max_length} tokens. Lower it, or raise --max_length."
            )
        tok = self.model.tokenizer
        sampling = generate.Sampling(
            max_new_tokens=given["max_gen_toks"],
            stop_ids=(tok.eos_id, tok.end_of_turn_id),
            temperature=float(given.get("temperature", 0.0)),
            top_k=int(given.get("top_k", 0)),
            top_p=float(given.get("top_p", 1.0)),
        )
        return sampling, [stop for stop in handle_stop_sequences(given["until"], None) if stop]
