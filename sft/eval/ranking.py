"""Classification by likelihood: which of the labels a model would rather say than the others.

What a generated answer is worth depends on where it ends, and a pretrained model hardly ever ends
its turn. Here nothing is generated: as lm-eval ranks choices, each label is put after the prompt,
and the one with the largest log-likelihood is the answer,

    label_accuracy        argmax over labels of  sum over its tokens t of log p(t | prompt, before)
    label_accuracy_norm   the same sum divided by the number of characters of the label

(its ``acc`` and ``acc_norm``). The end of turn after the label does not count, and neither does
what a model would say next. So a label whose tokens begin another label's, as *positive* begins
*positively*, would always be likelier than that one: from its likelihood those of the labels that
go on from it are taken away. What is compared is then the probability that an answer begins with
this label and with no longer one.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from sft.data.chat.encoding import ANSWER, PROMPT, Example
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.train import validation
from sft.train.steps import Steps
from sft.types import Tree


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Attributes:
    log_likelihood_nxk: float64, of each label after each prompt, in nats.
    chosen, chosen_norm: int64 ``[n]``, index of the first of the likeliest labels; by sum, and per
      character.
    """

    log_likelihood_nxk: np.ndarray
    chosen: np.ndarray
    chosen_norm: np.ndarray


def rank(
    config: ConfigDict,
    steps: Steps,
    trainable: Tree,
    frozen: Tree,
    tok: Tokenizer,
    prompts: Sequence[np.ndarray],
    labels: Sequence[str],
) -> Ranks:
    """Scores every label after every prompt, by the compiled function that scores validation.

    All labels of a prompt are rows of the same batch, or of the next.

    Args:
      prompts: int32 ids, up to where the answer starts.
    """
    choices = Choices(prompts, [tok.encode_array(label) for label in labels])
    scored = validation.by_example(
        config,
        steps,
        trainable,
        frozen,
        choices,
        max_length=choices.longest,
        what="rank",
    )
    tokens = [tuple(ids) for ids in choices.labels]
    found_nxk = without_longer(-scored.nll.reshape(len(prompts), len(labels)), tokens)
    characters_k = np.array([len(label) for label in labels], np.float64)
    return Ranks(found_nxk, found_nxk.argmax(1), (found_nxk / characters_k).argmax(1))


class Choices(Sequence[Example]):
    """Each label after each prompt, the labels of a prompt in a row; made when it is asked for."""

    def __init__(self, prompts: Sequence[np.ndarray], labels: Sequence[np.ndarray]):
        self.prompts, self.labels = prompts, labels

    def __len__(self) -> int:
        return len(self.prompts) * len(self.labels)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        i, j = divmod(int(index), len(self.labels))
        prompt, label = self.prompts[i], self.labels[j]
        kinds = np.full(len(prompt) + len(label), PROMPT, np.uint8)
        kinds[len(prompt) :] = ANSWER
        return Example(np.concatenate([prompt, label]), kinds)

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(map(len, self.prompts)) + max(map(len, self.labels))


def without_longer(found_nxk: np.ndarray, tokens: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Log-likelihoods of labels less those of labels that go on from them.

    Args:
      found_nxk: log-likelihoods of the labels' tokens.
      tokens: of each label; no two are the same.
    """
    result = found_nxk.copy()
    for j, ours in enumerate(tokens):
        longer = [m for m, theirs in enumerate(tokens) if m != j and theirs[: len(ours)] == ours]
        # What goes on from a longer one is part of it.
        nearest = [
            m
            for m in longer
            if not any(o != m and tokens[m][: len(tokens[o])] == tokens[o] for o in longer)
        ]
        if nearest:
            share_n = np.exp(found_nxk[:, nearest] - found_nxk[:, [j]]).sum(1)
            # Rounding may make as much of the parts as of the whole.
            result[:, j] += np.log(np.maximum(1 - share_n, 1e-9))
    return result
