"""Self-conditioning: the denoiser sees what it predicted in the pass before.

The last hidden states of the previous pass are projected and added to the input embeddings (Analog
Bits, arXiv 2208.04202, feeds predictions; the ancestor feeds hidden states, as here). The
projection starts at zero, so that a pretrained encoder is unchanged at first, and takes means over
the states, not sums, so that it learns no faster than the embeddings. Between the passes of a
decoding, a memory keeps the states of each row.

Letters: B batch, L length, H width of the hidden states, E width of the embeddings, R rows of a
pass.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from .configuration_maskgit import MaskGitConfig
from .encoder_kinds import PADDING_LEAKS, beside, hidden_size


class SelfConditioning(nn.Module):
    """Turns hidden states of the previous pass into what is added to the embeddings.

    A row without a previous pass gets a learned null state; it goes through the same projection, so
    that every parameter is part of every pass.

    Args:
        hidden_size: H.
        embedding_size: E.
        std: standard deviation of the initial null state.
    """

    def __init__(self, hidden_size: int, embedding_size: int, std: float = 0.02) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(embedding_size, hidden_size))
        self.null = nn.Parameter(torch.zeros(hidden_size))
        self.std = std  # kept, as transformers too calls `reset_parameters`
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start without effect: a projection of zeros."""
        nn.init.zeros_(self.weight)
        nn.init.normal_(self.null, std=self.std)

    def forward(self, previous: Tensor | None, has_previous: Tensor | None) -> Tensor:
        """Return what is added to the embeddings, (B, L, E), or (E,) where nothing came before.

        Args:
            previous: (B, L, H) hidden states, or None.
            has_previous: (B,) bool, rows whose states count; None means all.
        """
        states: Tensor = self.null
        if previous is not None:
            if has_previous is None:
                has_previous = previous.new_ones(len(previous), dtype=torch.bool)
            # Kept states may come from a pass under autocast, in its number format.
            states = previous.to(self.null.dtype)
            # The null state is broadcast over the length of the rows without a pass before.
            states = torch.where(has_previous[:, None, None], states, self.null)
        # Means, as muP (arXiv 2203.03466) scales what reads H units. An update of Adam moves every
        # weight by about the learning rate, and the sum of H such steps outgrew the embeddings
        # within a few updates: no text was seen any more, and training stayed at frequencies.
        return F.linear(states, self.weight / self.weight.shape[1])


def make_self_conditioning(
    config: MaskGitConfig, denoiser: PreTrainedModel
) -> SelfConditioning | None:
    """Make the part for an encoder, if the configuration asks for it.

    Raises:
        ValueError: for an encoder whose embeddings cannot be added to.
    """
    if not config.self_cond:
        return None
    encoder = config.encoder_config
    width = embedding_size(encoder, denoiser.get_input_embeddings())
    module = SelfConditioning(hidden_size(encoder), width, config.initializer_range)
    return cast(SelfConditioning, beside(denoiser, module))


class Memory:
    """Keeps the last hidden states of the pass before, row by row.

    A pass need not run all rows of a decoding: finished ones are left out. So each row has the
    states of its own last pass, and none before its first.

    Args:
        real: (B, L) bool, the rows of the decoding.
    """

    def __init__(self, real: Tensor) -> None:
        self._has = torch.zeros(len(real), dtype=torch.bool, device=real.device)
        self._states: Tensor | None = None

    def recall(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the arguments of `forward` that say what these rows' last pass was.

        Args:
            rows: (R,) long.

        Returns:
            Nothing before any pass; else `previous_hidden_states` (R, L, H) and `has_previous`
            (R,) bool.
        """
        if self._states is None:
            return {}
        return {
            "previous_hidden_states": self._states[rows],
            "has_previous": self._has[rows],
        }

    def keep(self, rows: Tensor, states: Tensor) -> None:
        """Remember what a pass made of some rows.

        Args:
            rows: (R,) long.
            states: (R, L, H), its last hidden states.
        """
        if self._states is None:  # their width is known from the first pass on
            self._states = states.new_zeros(len(self._has), *states.shape[1:])
        self._states[rows] = states
        self._has[rows] = True

    def hand_on(self, of: Tensor, rows: Tensor) -> None:
        """Remember for rows (R,) long what is kept of others, (R,) long, that have had a pass."""
        if self._states is not None:
            self.keep(rows, self._states[of])


def add_to_embeddings(embeddings: Tensor, addition: Tensor) -> Tensor:
    """Add (B, L, E) or (E,) to embeddings, (B, L', E); an encoder may have padded L to L'."""
    if addition.ndim == 3 and embeddings.shape[1] > addition.shape[1]:
        addition = F.pad(addition, (0, 0, 0, embeddings.shape[1] - addition.shape[1]))
    return embeddings + addition.to(embeddings.dtype)


def spare_padding(addition: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return (B, L, E) that is 0 at padding, as some encoders (MobileBERT) let a token see it.

    Args:
        addition: (B, L, E) or (E,).
        attention_mask: (B, L), 1 at real tokens; None and masks of other shapes change nothing.
    """
    if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2:
        return addition
    # An addition (E,) is widened first: one vector cannot be 0 at padding alone.
    padding = attention_mask[:, :, None] == 0
    return addition.expand(*attention_mask.shape, -1).masked_fill(padding, 0.0)


def embedding_size(encoder: PreTrainedConfig, embeddings: Any) -> int:
    """Return the width E of an encoder's token embeddings.

    Raises:
        ValueError: for an encoder whose embeddings cannot be added to.
    """
    kind = encoder.model_type
    if kind in PADDING_LEAKS:
        raise ValueError(
            f"Self-conditioning is not available for {kind!r}, which runs without padding: the "
            "states of rows of different lengths cannot be handed on. Set self_cond=False."
        )
    if not isinstance(embeddings, nn.Embedding):
        raise ValueError(
            f"Self-conditioning adds to the token embeddings, and those of {kind!r} are a "
            f"{type(embeddings).__name__}, to which nothing can be added. Set self_cond=False."
        )
    return embeddings.embedding_dim
