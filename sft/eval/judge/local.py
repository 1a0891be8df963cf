"""The judge is a Gemma checkpoint loaded here: no key, no cost, and always there."""

from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from sft import session
from sft.data.chat import encoding
from sft.data.conversation import Turn
from sft.data.sets import loading
from sft.errors import UserError
from sft.eval import arms, harness
from sft.eval.judge.backend import Reply
from sft.model import weights
from sft.session import Session


class Local:
    """The base model of the run, or the weights of ``config.judge.weights``; see ``Backend``."""

    def __init__(self, config: ConfigDict):
        self._config = _as_judge(config)
        key = "judge" if config.judge.weights else "model"
        session.name_model(self._config)
        self._session = Session(self._config)
        files = weights.resolve(self._config.model.weights, setting=f"config.{key}.weights")
        try:
            self._tokenizer = self._session.tokenizer
        except UserError as error:
            said = str(error).replace("config.model.tokenizer", f"config.{key}.tokenizer")
            raise UserError(said) from None
        self._model: harness.Model | None = None
        self.identity: dict[str, Any] = {
            "backend": "local",
            "model": self._config.model.name,
            "weights": str(files),
            "changed": session.identity(self._config),
            "dtype": self._config.model.dtype,
            "temperature": self._config.eval.temperature,
            "max_new_tokens": self._config.eval.max_new_tokens,
            "seed": self._config.seed,
        }

    def ask(self, prompts: Sequence[str], on_reply: Callable[[int, Reply], None]) -> None:
        """Batch by batch, the short prompts first."""
        if self._model is None:
            self._model = arms.load(self._session, None)
        ids = self._encode(prompts)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        size = self._config.eval.batch_size
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            answers = harness.answer(self._model, self._config, [ids[i] for i in chosen])
            for i, answer in zip(chosen, answers, strict=True):
                written = len(self._tokenizer.encode(answer.text))
                on_reply(i, Reply(answer.text, len(ids[i]), written, answer.cut))

    def count(self, prompts: Sequence[str]) -> int:
        return sum(map(len, self._encode(prompts)))

    def _encode(self, prompts: Sequence[str]) -> list:
        form = loading.chat_format(self._config, self._session.spec)
        return [
            encoding.encode_prompt([Turn("user", prompt)], self._tokenizer, form)
            for prompt in prompts
        ]


def _as_judge(config: ConfigDict) -> ConfigDict:
    """The configuration of a run whose model is the judge."""
    judge, ours = config.judge, config.copy_and_resolve_references()
    if judge.model and judge.model != config.model.name and not judge.weights:
        raise UserError(
            f"config.judge.model = {judge.model!r} is not the run's model: set "
            "config.judge.weights to its weights."
        )
    ours.model.name = judge.model or ("" if judge.weights else config.model.name)
    if judge.weights:
        ours.model.weights, ours.model.tokenizer = judge.weights, judge.tokenizer
        ours.model.sha256 = ""  # that of the run's weights
        ours.data.chat = ""
    ours.eval.temperature = judge.temperature
    ours.eval.max_new_tokens = judge.max_new_tokens
    ours.eval.top_k, ours.eval.top_p, ours.eval.stop = 0, 1.0, ""
    ours.seed = judge.seed
    return ours
