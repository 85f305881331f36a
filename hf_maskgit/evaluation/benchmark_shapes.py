"""Shapes of encoders and texts that speed is measured with; their weights are random.

Random weights take as long as trained ones. To add a kind of encoder is to add a row to `ENCODERS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
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
    return MaskGitForMaskedLM(config).eval().to(device)


BERT = Sizes("bert", 6, 384, 12, 1536, 30_522, batch_size=8, length=128, steps=18)
