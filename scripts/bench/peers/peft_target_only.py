"""transformers + PEFT with a loop and a loss of one's own: the LM head on the target rows only.

No library ships this; it is the strongest PyTorch program that we could write in a page. Variants
as in ``peft_stock.py``.
"""

import common
import torch
from peft_stock import grouped_steps, load, precision


def main() -> None:
    args = common.arguments("peft_target_only")
    model, optimizer = load(args)
    causal = model.get_base_model()

    def step(examples: list[common.Example]) -> float:
        batch = common.pad(examples)
        tokens_BxL = torch.from_numpy(batch["tokens_BxL"]).long()
        predicts_BxL = torch.from_numpy(batch["is_target_BxL"][:, 1:])
        with precision(args.variant):
            hidden_BxLxD = causal.model(
                input_ids=tokens_BxL,
                attention_mask=torch.from_numpy(batch["is_token_BxL"]).long(),
                use_cache=False,
            ).last_hidden_state
            logits_TxV = causal.lm_head(hidden_BxLxD[:, :-1][predicts_BxL])
        targets_T = tokens_BxL[:, 1:][predicts_BxL]
        loss = torch.nn.functional.cross_entropy(logits_TxV.float(), targets_T)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    common.run(args, grouped_steps(args), step)


if __name__ == "__main__":
    main()
