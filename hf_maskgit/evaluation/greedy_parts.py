"""Whether greedy decoding would write a part of a text, given the rest and its number of tokens.

Greedy decoding is `generate` without sampling: of all masked places the one goes first whose
likeliest token is most probable, one per pass. Most parts fall at their first token, which a single
pass tells; the others are decoded.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..core.argument_checks import check_whole
from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..core.text_bound import predict_masked
from ..core.unknown_tokens import counted_before
from .batches import evaluating, sorted_batches

# One token per pass, the most probable first; no option that a model stores changes it.
_GREEDY: dict[str, Any] = {
    "order": "top_probability",
    "pace": "schedule",
    "schedule": "linear",
    "remask": "never",
    "choice_temperature": 0.0,
    "do_sample": False,
    "use_cache": False,
    "guidance_scale": 1.0,
    "repetition_penalty": 1.0,
    "suppress_tokens": [],
    "bad_words_ids": [],
    "eos_token_id": [],
    "max_unknown_share": 1.0,
    "num_tokens": "fixed",
    "max_new_tokens": 0,
    "num_return_sequences": 1,
    "return_dict_in_generate": False,
}


@torch.no_grad()
def written_greedily(
    model: MaskGitForMaskedLM, examples: Sequence[Mapping[str, Any]], batch_size: int = 64
) -> list[bool]:
    """Tell of each text whether greedy decoding fills its judged part as it is.

    Args:
        model: decodes; it is left in the mode it was in.
        examples: framed `input_ids`, and `maskable`, 1 at the part, which has a token.
        batch_size: texts per pass.
    """
    check_whole("batch_size", batch_size, least=1)
    found = [False] * len(examples)
    with evaluating(model), counted_before():
        for index in sorted_batches(examples, batch_size):
            begins = _Batch(model, [examples[i] for i in index]).first_is_right()
            left = [i for i, right in zip(index, begins, strict=True) if right]
            if left:
                whole = _Batch(model, [examples[i] for i in left]).all_are_right()
                for i, right in zip(left, whole, strict=True):
                    found[i] = right
    return found


class _Batch:
    """Some texts, padded to one length."""

    def __init__(self, model: MaskGitForMaskedLM, examples: Sequence[Mapping[str, Any]]) -> None:
        self.model = model
        padding = model.config.pad_token_id or 0  # behind the attention mask, any id will do
        columns = [torch.tensor(one["input_ids"]) for one in examples]
        self.ids = pad_sequence(columns, batch_first=True, padding_value=padding).to(model.device)
        ones = [torch.ones_like(column) for column in columns]
        self.real = pad_sequence(ones, batch_first=True).to(model.device)
        judged = [torch.tensor(one["maskable"]).bool() for one in examples]
        self.judged = pad_sequence(judged, batch_first=True).to(model.device)

    def first_is_right(self) -> list[bool]:
        """Tell whether the first token that is revealed is right, or cannot be ruled out."""
        config = self.model.config
        if config.end_token_ids and not config.suffix_ids:
            return [True] * len(self.ids)  # a text may end there instead, if nothing is behind
        logits = predict_masked(self.model, self.ids, self.real, self.judged, False).float()
        logits[:, [*config.unwritten_token_ids, *config.end_token_ids]] = -torch.inf
        best, token = logits.softmax(-1).max(-1)
        certainty = torch.full(self.ids.shape, -1.0, device=best.device)
        certainty[self.judged] = best
        tokens = torch.full_like(self.ids, -1)
        tokens[self.judged] = token
        first = certainty.argmax(1, keepdim=True)
        same: Tensor = tokens.gather(1, first) == self.ids.gather(1, first)
        return list(same[:, 0].tolist())

    def all_are_right(self) -> list[bool]:
        """Decode the parts and compare."""
        mask = cast(int, self.model.config.mask_token_id)
        masked = self.ids.masked_fill(self.judged, mask)
        steps = int(self.judged.sum(1).max())
        filled = self.model.generate(masked, self.real, steps=steps, **_GREEDY)
        return list(((filled == self.ids) | ~self.judged).all(1).tolist())
