"""Shapes of encoders and texts that speed is measured with; their weights are random.

An encoder takes as long with random weights as with trained ones. What is sure is another matter:
some orders need fewer logits where the model is sure of something, and new weights are of nothing,
so that the spread of the logits can be set. To add a kind of encoder is to add a row to `ENCODERS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import BertConfig, EsmConfig, ModernBertConfig, PreTrainedConfig

from ..core.configuration_maskgit import MaskGitConfig
from ..core.modeling_maskgit import MaskGitForMaskedLM

_MASK_TOKEN_ID = 103  # bert-base-uncased's; the last id of a smaller vocabulary


@dataclass(frozen=True)
class Sizes:
    """Sizes of an encoder and of the texts that it fills.

    Attributes:
        encoder: a row of `ENCODERS`.
        layers, hidden, heads, intermediate: of the encoder.
        vocab_size: V.
        batch_size: B, texts side by side.
        length: L, tokens of a text, all masked.
        steps: passes.
        logit_spread: standard deviation of a position's logits; None is that of new weights, whose
            logits are nearly equal.
    """

    encoder: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocab_size: int
    batch_size: int
    length: int
    steps: int
    logit_spread: float | None = None


def _bert(sizes: Sizes) -> PreTrainedConfig:
    return BertConfig(max_position_embeddings=max(512, sizes.length), **_common(sizes))


def _modernbert(sizes: Sizes) -> PreTrainedConfig:
    # its own special ids lie beyond a small vocabulary
    ids = dict.fromkeys(f"{name}_token_id" for name in ("pad", "bos", "eos", "cls", "sep"))
    return ModernBertConfig(**{**_common(sizes), **ids, "pad_token_id": 0})


def _esm(sizes: Sizes) -> PreTrainedConfig:
    return EsmConfig(
        position_embedding_type="rotary",
        pad_token_id=1,
        mask_token_id=mask_token_id(sizes),
        max_position_embeddings=sizes.length + 2,
        **_common(sizes),
    )


def _common(sizes: Sizes) -> dict[str, Any]:
    return {
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.intermediate,
    }


ENCODERS: dict[str, Callable[[Sizes], PreTrainedConfig]] = {
    "bert": _bert,
    "modernbert": _modernbert,
    "esm": _esm,
}


def mask_token_id(sizes: Sizes) -> int:
    """Return the id of the mask in a vocabulary."""
    return min(_MASK_TOKEN_ID, sizes.vocab_size - 1)


def build_model(sizes: Sizes, device: torch.device) -> MaskGitForMaskedLM:
    """Build a generator of the sizes with random weights in float32, ready to generate."""
    config = MaskGitConfig(
        text_config=ENCODERS[sizes.encoder](sizes), mask_token_id=mask_token_id(sizes)
    )
    model = MaskGitForMaskedLM(config).eval().to(device)
    if sizes.logit_spread is not None:
        _spread(model, sizes)
    return model


@torch.no_grad()
def _spread(model: MaskGitForMaskedLM, sizes: Sizes) -> None:
    """Scale what the head's matrix is applied to, until logits have the spread that is asked for.

    Raises:
        ValueError: for a head that ends in no normalisation with a weight.
    """
    body = set(model.denoiser.base_model.modules())
    norms = [m for m in model.denoiser.modules() if isinstance(m, nn.LayerNorm) and m not in body]
    if not norms:
        raise ValueError(f"The head of {sizes.encoder!r} has no LayerNorm to spread its logits by.")
    masks = torch.full((1, sizes.length), mask_token_id(sizes), device=model.device)
    found = model(input_ids=masks).logits.std(-1).mean()
    norms[-1].weight.mul_(cast(float, sizes.logit_spread) / found)


BERT = Sizes("bert", 6, 384, 12, 1536, 30_522, batch_size=8, length=128, steps=18)
