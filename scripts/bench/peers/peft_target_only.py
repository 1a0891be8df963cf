"""transformers + PEFT with a loop and a loss of one's own: the LM head on the target rows only.

No library ships this; it is the strongest PyTorch program that we could write in a page. Variants
as in ``peft_stock.py``.
"""

import torch
from peft_stock import train


def target_only_loss(model, tokens_BxL, is_token_BxL, is_target_BxL) -> torch.Tensor:
    causal = model.get_base_model()
    predicts_BxL = is_target_BxL[:, 1:]
    hidden_BxLxD = causal.model(
        input_ids=tokens_BxL, attention_mask=is_token_BxL, use_cache=False
    ).last_hidden_state
    logits_TxV = causal.lm_head(hidden_BxLxD[:, :-1][predicts_BxL])
    targets_T = tokens_BxL[:, 1:][predicts_BxL]
    return torch.nn.functional.cross_entropy(logits_TxV.float(), targets_T)


if __name__ == "__main__":
    train("peft_target_only", target_only_loss)
