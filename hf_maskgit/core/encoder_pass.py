"""One pass of an encoder, seen from outside: hooks that gather positions and add to embeddings.

The LM head runs only where logits are needed, and self-conditioning reaches the input, whatever
the encoder looks like inside: both by forward hooks. What a pass is about lies on the hooked
modules themselves while it runs, so that every copy of a model and every replica of DataParallel
has its own.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from .self_conditioning import SelfConditioning, add_to_embeddings, spare_padding

logger = logging.get_logger(__name__)


@dataclass
class EncoderPass:
    """What one pass is about.

    Args:
        head_positions: (B, L) bool, where the LM head runs; None is everywhere.
        previous_hidden_states: (B, L, H) of the pass before, for self-conditioning.
        has_previous: (B,) bool, rows that had one; None is all.
        keeps_hidden_state: leave the encoder's last hidden state in `last_hidden_state`.
    """

    head_positions: Tensor | None = None
    previous_hidden_states: Tensor | None = None
    has_previous: Tensor | None = None
    keeps_hidden_state: bool = False
    last_hidden_state: Tensor | None = None
    _places: tuple[Tensor, ...] | None = None  # rows and columns of the head's positions


def hook_encoder(denoiser: PreTrainedModel, self_conditioning: SelfConditioning | None) -> None:
    """Register what `running` relies on; again after the token embeddings were replaced."""
    _hook(denoiser.base_model, _gather_hidden_states)
    if self_conditioning is not None:
        _hook(denoiser.get_input_embeddings(), _add_to_embeddings)


@contextlib.contextmanager
def running(
    this_pass: EncoderPass,
    denoiser: PreTrainedModel,
    self_conditioning: SelfConditioning | None,
    arguments: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Let the hooks know what a forward pass within is about.

    Args:
        this_pass: what it is about.
        denoiser: hooked by `hook_encoder`.
        self_conditioning: of the model, if it has any.
        arguments: of the encoder.

    Yields:
        The arguments to make the pass with.
    """
    body: Any = denoiser.base_model
    embeddings: Any = denoiser.get_input_embeddings()
    # Where N is decided before the body runs, a compiler makes one graph of it and the head.
    positions = this_pass.head_positions
    this_pass._places = None if positions is None else positions.nonzero(as_tuple=True)
    body._pass = this_pass
    if self_conditioning is not None:
        addition = spare_padding(
            self_conditioning(this_pass.previous_hidden_states, this_pass.has_previous),
            arguments.get("attention_mask"),
        )
        if "inputs_embeds" in arguments:  # then the encoder's own embeddings are not asked
            given = arguments["inputs_embeds"]
            arguments = {**arguments, "inputs_embeds": add_to_embeddings(given, addition)}
        else:
            embeddings._addition = addition
    try:
        yield arguments
    finally:
        body._pass = embeddings._addition = None


def warn_of_dropout(model: Any, what: str) -> None:
    """Warn once, where a model is in training mode, of what its dropout disturbs."""
    if getattr(model, "training", False):
        logger.warning_once(
            f"The model is in training mode, so dropout disturbs {what}; call model.eval() first."
        )


def _hook(module: nn.Module, function: Any) -> None:
    """Register a forward hook once; the encoder may serve another generator already."""
    if function not in module._forward_hooks.values():
        module.register_forward_hook(function)


def _gather_hidden_states(body: nn.Module, args: Any, output: Any) -> Any:
    """Forward hook of the encoder's body: pass on (1, N, H) instead of (B, L, H)."""
    this_pass: EncoderPass | None = getattr(body, "_pass", None)
    if this_pass is None:
        return None
    # The hidden state comes first, whatever its name.
    if this_pass.keeps_hidden_state:
        this_pass.last_hidden_state = output[0]
    if this_pass._places is not None:
        output[next(iter(output.keys()))] = output[0][this_pass._places].unsqueeze(0)
    return output


def _add_to_embeddings(embeddings: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Forward hook of the token embeddings: add what the pass before made of the text."""
    addition: Tensor | None = getattr(embeddings, "_addition", None)
    return output if addition is None else add_to_embeddings(output, addition)
