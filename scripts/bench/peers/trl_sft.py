"""TRL's SFTTrainer, completion-only, with its default loss, which it documents as memory-lean.

Padded to the longest example of the batch, with examples of like length together; not packed, as
TRL's documentation keeps packed examples apart with FlashAttention only, which CPUs lack. Variants:
``""`` keeps its default of gradient checkpointing; ``no_checkpointing`` turns that off for speed.
"""

import itertools
import tempfile

import common
import numpy as np
import torch
from common import ALPHA, LEARNING_RATE, PROJECTIONS, RANK
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Timed(SFTTrainer):
    """Keeps the loss of the last step; everything else is TRL's."""

    last_loss = float("nan")

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.last_loss = loss.item()
        return loss


class Clock(TrainerCallback):
    """Times each optimiser step between the Trainer's own two events."""

    def __init__(self, args, steps: list[list[common.Example]]):
        self.blocks = common.Blocks(args)
        self.steps = itertools.cycle(steps)

    def on_step_begin(self, args, state, control, **kwargs):
        self.blocks.begin()

    def on_step_end(self, args, state, control, **kwargs):
        if not self.blocks.end(next(self.steps), self.trainer.last_loss):
            control.should_training_stop = True


def placeholder_tokenizer() -> PreTrainedTokenizerFast:
    """The examples are ids already; the trainer only asks its tokenizer for the padding token."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
    )


def main() -> None:
    args = common.arguments("trl")
    torch.set_num_threads(args.threads)
    examples = common.read_examples(args.exchange)
    steps = common.group_by_length(common.cut(examples, args.examples_per_step))
    rows = [
        {"input_ids": e.tokens.tolist(), "completion_mask": e.is_target.astype(np.int8).tolist()}
        for step in steps
        for e in step
    ]
    clock = Clock(args, steps)
    options = {"gradient_checkpointing": False} if args.variant == "no_checkpointing" else {}
    with tempfile.TemporaryDirectory() as output:
        trainer = Timed(
            model=AutoModelForCausalLM.from_pretrained(args.exchange / "hf", dtype=torch.bfloat16),
            args=SFTConfig(
                output_dir=output,
                use_cpu=True,
                per_device_train_batch_size=args.examples_per_step,
                train_sampling_strategy="sequential",  # of rows that are in order already
                max_steps=1_000_000,
                max_length=None,
                completion_only_loss=True,
                learning_rate=LEARNING_RATE,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **options,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=placeholder_tokenizer(),
            peft_config=LoraConfig(
                r=RANK, lora_alpha=ALPHA, target_modules=PROJECTIONS, task_type="CAUSAL_LM"
            ),
            callbacks=[clock],
        )
        clock.trainer = trainer
        trainer.train()


if __name__ == "__main__":
    main()
