"""transformers + PEFT as their documentation shows: ``model(**batch, labels=...)`` and AdamW.

Padded to the longest example of the batch, with examples of like length together. Variants: ``""``
leaves the adapters' matrix products in float32 (PEFT keeps adapters in float32); ``autocast`` runs
under ``torch.autocast``, as the Trainer does with ``bf16=True``.
"""

import contextlib
from collections.abc import Callable

import common
import torch
from common import ALPHA, LEARNING_RATE, PROJECTIONS, RANK
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def load(args) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """The bf16 model with float32 adapters, in training mode, and its optimiser."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(args.exchange / "hf", dtype=torch.bfloat16)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    model = get_peft_model(model, config).train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.AdamW(trainable, lr=LEARNING_RATE, weight_decay=0.0)


def grouped_steps(args) -> list[list[common.Example]]:
    examples = common.read_examples(args.exchange)
    return common.group_by_length(common.cut(examples, args.examples_per_step))


def precision(variant: str):
    if variant == "autocast":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def train(name: str, loss_of: Callable[..., torch.Tensor]) -> None:
    """Runs the program ``name``, whose loss is ``loss_of(model, tokens, is_token, is_target)``."""
    args = common.arguments(name)
    model, optimizer = load(args)

    def step(examples: list[common.Example]) -> float:
        batch = common.pad(examples)
        tokens_BxL = torch.from_numpy(batch["tokens_BxL"]).long()
        is_token_BxL = torch.from_numpy(batch["is_token_BxL"]).long()
        is_target_BxL = torch.from_numpy(batch["is_target_BxL"])
        with precision(args.variant):
            loss = loss_of(model, tokens_BxL, is_token_BxL, is_target_BxL)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    common.run(args, grouped_steps(args), step)


def stock_loss(model, tokens_BxL, is_token_BxL, is_target_BxL) -> torch.Tensor:
    labels_BxL = tokens_BxL.masked_fill(~is_target_BxL, -100)
    return model(input_ids=tokens_BxL, attention_mask=is_token_BxL, labels=labels_BxL).loss


if __name__ == "__main__":
    train("peft_stock", stock_loss)
