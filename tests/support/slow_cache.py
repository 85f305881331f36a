"""An attention cache that is slow and obvious: whole texts are run, kept keys put in their place.

Nothing is gathered: positions, token types and masks are those of a full pass, and at positions
that are not active each attention is given the keys and values that it had before.
"""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.core.decoding_cache import CacheOptions, Denoiser


class SlowCache:
    """A generator that is run in full and remembers keys and values of B rows.

    Args:
        model: left as it is.
        real: (B, L) bool.
        **inputs: what else the encoder is given, (B, L) each.
    """

    def __init__(self, model: MaskGitForMaskedLM, real: Tensor, **inputs: Tensor) -> None:
        self.real, self.inputs = real, inputs
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.name = f"slow_cache_{id(self)}"
        AttentionInterface.register(self.name, self._attention)
        AttentionMaskInterface.register(self.name, sdpa_mask)
        self.model = copy.deepcopy(model)
        self.model.set_attn_implementation(self.name)

    def logits(
        self, rows: Tensor, text: Tensor, positions: Tensor, active: Tensor | None
    ) -> Tensor:
        """Logits (N, V) at positions (R, L) bool; fresh are the active ones alone, None is all."""
        self.rows, self.number = rows, 0
        self.active = torch.ones_like(positions) if active is None else active
        inputs = {name: value[rows] for name, value in self.inputs.items()}
        real = self.real[rows].long()
        with torch.no_grad():
            return self.model(text, real, masked_positions=positions, **inputs).logits

    def _attention(self, module: Any, query: Tensor, *key_value: Tensor, **options: Any) -> Any:
        *fresh, mask = key_value
        if self.number == len(self.kept):
            shape = (len(self.real), *fresh[0].shape[1:])
            self.kept.append((fresh[0].new_zeros(shape), fresh[0].new_zeros(shape)))
        where = self.active[:, None, :, None]
        for kept, new in zip(self.kept[self.number], fresh, strict=True):
            kept[self.rows] = torch.where(where, new, kept[self.rows])
        key, value = (kept[self.rows] for kept in self.kept[self.number])
        self.number += 1
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, **options)


class SlowCachedDenoiser:
    """The rules of `CachedDenoiser` with refreshes at intervals, row by row and word by word."""

    def __init__(self, denoiser: Denoiser, block: Tensor, options: CacheOptions) -> None:
        self.model, self.block, self.interval = (
            denoiser.model,
            block,
            options.cache_refresh_interval,
        )
        types = {} if denoiser.types is None else {"token_type_ids": denoiser.types}
        self.cache = SlowCache(denoiser.model, denoiser.real, **types)
        self.last: dict[int, list[Any]] = {}  # by row: block, text at the last full pass, its age

    def __call__(self, rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
        found = []
        for row, words, asked in zip(rows.tolist(), text, positions, strict=True):
            (block,) = set(self.block[row][asked].tolist())
            last = self.last.get(row)
            active = None
            if last is None or last[0] != block or last[2] == self.interval:
                self.last[row] = [block, words.clone(), 1]
            else:
                last[2] += 1
                mask = self.model.config.mask_token_id
                active = torch.zeros_like(asked)
                for i, word in enumerate(words.tolist()):
                    is_mask_of_block = word == mask and self.block[row, i] == block
                    active[i] = bool(asked[i]) or is_mask_of_block or word != last[1][i]
                active = active[None]
            one = torch.tensor([row])
            found.append(self.cache.logits(one, words[None], asked[None], active))
        return torch.cat(found)
