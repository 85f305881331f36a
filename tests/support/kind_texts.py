"""Three texts that the tiny tokenizer of each kind of encoder knows, plain and with masks."""

import torch


def texts_of(kind):
    if kind == "esm":
        return ["LAGVSERT", "MK", "QNFYMHWCLAGV"]
    return ["w1 w2 w3 w4 w5 w6", "w7 w8", "w9 w10 w11 w12 w13 w14 w15 w16 w17 w18"]


def rows_of(kind, tokenizer):
    return [torch.tensor(row) for row in tokenizer(texts_of(kind))["input_ids"]]


def masked_text(kind, tokenizer):
    """A framed text, some of whose tokens are masks, (1, L)."""
    row = rows_of(kind, tokenizer)[2].clone()
    row[[2, 3, 6]] = tokenizer.mask_token_id
    return row[None]
