"""One pass of any encoder, by two hooks: on its head and on its embeddings.

The LM head runs only where logits are needed, and self-conditioning reaches the input, whatever
the encoder looks like inside: both by forward hooks. What a pass is about belongs to the thread
that makes it and to the two modules it is made with, never to a module alone: several threads may
call one model, and every copy of it and every replica of DataParallel has its own. An encoder that
would confuse padding with text gets rows without padding (`encoder_padding`).

Letters: B batch, L length, H width of the hidden states, V vocabulary, N chosen positions.
"""

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from .encoder_kinds import PADDING_LEAKS, min_positions
from .encoder_padding import holds_confusing_padding, run_without_padding
from .left_edge import LeftEdge
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
        holds_head_back: leave what the head would run on, (N, H), in `held_back`, and run it on no
            position.
        edge: how the texts come to the left edge; None where they stand there. All else is in the
            caller's columns.
    """

    head_positions: Tensor | None = None
    previous_hidden_states: Tensor | None = None
    has_previous: Tensor | None = None
    keeps_hidden_state: bool = False
    holds_head_back: bool = False
    edge: LeftEdge | None = None
    last_hidden_state: Tensor | None = None
    held_back: Tensor | None = None
    _rows_and_columns: tuple[Tensor, ...] | None = field(init=False)  # of the head's positions

    def __post_init__(self) -> None:
        # N is decided here, before the pass is begun: a compiler then makes one graph of the body
        # and the head, and where it must stop to learn N, it can go on behind.
        positions = self.head_positions
        self._rows_and_columns = None if positions is None else positions.nonzero(as_tuple=True)


@dataclass
class _Running:
    """A pass in the middle of its run: what it is about, and the modules whose hooks it means."""

    about: EncoderPass
    body: nn.Module
    embeddings: nn.Module
    addition: Tensor | None


class _Thread(threading.local):
    """What this thread is at; its hooks look here.

    A thread begins with nothing of the thread that started it, and needs nothing: a pass is set and
    looked up within one call of `forward`, also where torch makes that call in a thread of its own
    (a replica of DataParallel, a recomputation during the backward pass).
    """

    # A context variable would do the same, but a compiler cannot look into one. Set in each thread,
    # not in the class: what a compiler has seen to be absent may not appear while it looks.
    def __init__(self) -> None:
        self.running: _Running | None = None


_THREAD = _Thread()
_HOOKING = threading.Lock()


def hook_encoder(denoiser: PreTrainedModel, self_conditioning: SelfConditioning | None) -> None:
    """Register what `running` relies on, where it is not registered yet.

    Args:
        denoiser: changed in place.
        self_conditioning: of the model, if it has any.
    """
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
    """Let the hooks of this thread know what a forward pass within is about.

    Args:
        this_pass: what it is about.
        denoiser: hooked by `hook_encoder`.
        self_conditioning: of the model, if it has any.
        arguments: of the encoder, in the caller's columns.

    Yields:
        The arguments to make the pass with, at the left edge.
    """
    # Adapters (PEFT) wrap or replace modules of a model that is hooked already.
    hook_encoder(denoiser, self_conditioning)
    now = _Running(this_pass, denoiser.base_model, denoiser.get_input_embeddings(), None)
    edge, previous = this_pass.edge, this_pass.previous_hidden_states
    if edge is not None:
        arguments = edge.move(arguments)
        previous = None if previous is None else edge.pack(previous)
    if self_conditioning is not None:
        addition = spare_padding(
            self_conditioning(previous, this_pass.has_previous), arguments.get("attention_mask")
        )
        if "inputs_embeds" in arguments:  # then the encoder's own embeddings are not asked
            given = arguments["inputs_embeds"]
            arguments = {**arguments, "inputs_embeds": add_to_embeddings(given, addition)}
        else:
            now.addition = addition
    before, _THREAD.running = _THREAD.running, now
    try:
        yield arguments
    finally:
        # Also after an error: a later pass of the encoder alone must find nothing of this one.
        # A pass may be made within another one, by somebody's hook: that one then goes on.
        _THREAD.running = before


def predict(
    this_pass: EncoderPass,
    denoiser: PreTrainedModel,
    self_conditioning: SelfConditioning | None,
    arguments: dict[str, Any],
    attention_mask: Tensor | None,
    details: dict[str, bool],
) -> tuple[Tensor, Any]:
    """Run an encoder with its LM head, without padding where it would confuse that with text.

    Args:
        this_pass: what the pass is about.
        denoiser: hooked by `hook_encoder`.
        self_conditioning: of the model, if it has any.
        arguments: of the encoder, none that it does not know.
        attention_mask: (B, L), 1 at real tokens, also where the encoder knows no mask.
        details: whether to return hidden states and attentions, as arguments of the encoder.

    Returns:
        Logits, (N, V) at the head's positions or (B, L, V), and all that the encoder returned.

    Raises:
        ValueError: for texts too short for the encoder, and for details of a padded batch from an
            encoder that runs without padding.
    """
    by_length = holds_confusing_padding(denoiser, attention_mask)
    if by_length and (any(details.values()) or this_pass.keeps_hidden_state):
        kind = denoiser.config.model_type
        raise ValueError(
            f"Hidden states and attentions of a padded batch are not available from {kind!r}, "
            f"which runs without padding ({PADDING_LEAKS[kind]}); pass texts of one length."
        )
    output: Any = {}

    def run(of_rows: dict[str, Any], positions: Tensor | None) -> Tensor:
        nonlocal output
        _check_length(of_rows, denoiser)
        about = EncoderPass(positions) if by_length else this_pass
        with running(about, denoiser, self_conditioning, of_rows) as of_rows:
            output = denoiser(**of_rows, **details, return_dict=True)
        logits: Tensor = output.logits
        if about.edge is not None:
            about.edge.restore(output)
            logits = about.edge.back(logits) if positions is None else logits
        # At some positions the hook made one text of all, so the logits are (1, N, V).
        return logits if positions is None else logits.squeeze(0)

    positions = this_pass.head_positions
    return run_without_padding(run, denoiser, arguments, attention_mask, positions), output


def states_of_denoiser(
    denoiser: PreTrainedModel,
    self_conditioning: SelfConditioning | None,
    arguments: dict[str, Any],
    edge: LeftEdge | None,
    positions: Tensor | None = None,
) -> Tensor:
    """Return what `states_at` does for the body of a denoiser, in a pass with none before it.

    Args:
        denoiser: hooked by `hook_encoder`.
        self_conditioning: of the model, if it has any.
        arguments: of the encoder.
        edge: how the texts come to the left edge; None where they stand there.
        positions: (B, L) bool; None means everywhere.
    """
    body = denoiser.base_model
    edge = None if holds_confusing_padding(body, arguments.get("attention_mask")) else edge

    def states(of_rows: dict[str, Any]) -> Tensor:
        about = EncoderPass(keeps_hidden_state=True, edge=edge)
        with running(about, denoiser, self_conditioning, of_rows) as of_rows:
            body(**of_rows, return_dict=True)
        return cast(Tensor, about.last_hidden_state)  # the hook has put it back

    return _at(states, body, arguments, positions)


def look_back(
    share: float,
    denoiser: PreTrainedModel,
    self_conditioning: SelfConditioning,
    arguments: dict[str, Any],
    edge: LeftEdge | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Make the pass that self-conditioning looks back on, without gradient.

    For all texts, although some may not use it: every process then does the same work, and shapes
    do not change from batch to batch.

    Args:
        share: probability in [0, 1] with which a text uses it.
        denoiser: hooked by `hook_encoder`.
        self_conditioning: of the model.
        arguments: of the encoder.
        edge: how the texts come to the left edge; None where they stand there.

    Returns:
        Hidden states (B, L, H), None for a share of 0, and which rows (B,) bool use them, None for
        all.
    """
    if share == 0:
        return None, None
    with torch.no_grad():
        states = states_of_denoiser(denoiser, self_conditioning, arguments, edge)
    if share == 1:
        return states, None  # and torch's generator is left alone
    return states, torch.rand(len(states), device=states.device) < share


def states_at(
    body: Any, arguments: dict[str, Any], edge: LeftEdge | None, positions: Tensor | None
) -> Tensor:
    """Return an encoder's last hidden states.

    Args:
        body: an encoder without a head.
        arguments: of its forward; those that it does not know are left out.
        edge: how the texts come to the left edge; None where they stand there.
        positions: (B, L) bool; None means everywhere.

    Returns:
        (N, H) at the positions, or (B, L, H).
    """
    edge = None if holds_confusing_padding(body, arguments.get("attention_mask")) else edge

    def states(of_rows: dict[str, Any]) -> Tensor:
        found: Tensor = body(**of_rows if edge is None else edge.move(of_rows), return_dict=True)[0]
        return found if edge is None else edge.back(found)

    return _at(states, body, arguments, positions)


def argument_names(encoder: Any) -> frozenset[str]:
    """Name the arguments of an encoder's forward, but for what it takes under any name."""
    parameters = inspect.signature(encoder.forward).parameters.values()
    return frozenset(
        parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD
    )


def _at(
    states: Callable[[dict[str, Any]], Tensor],
    body: Any,
    arguments: dict[str, Any],
    positions: Tensor | None,
) -> Tensor:
    """Return what an encoder's states (b, l, H) of some rows are at positions; see `states_at`."""

    def run(of_rows: dict[str, Any], positions: Tensor | None) -> Tensor:
        hidden = states(of_rows)
        return hidden if positions is None else hidden[positions]

    known = argument_names(body)
    mask = arguments.get("attention_mask")
    arguments = {name: value for name, value in arguments.items() if name in known}
    return run_without_padding(run, body, arguments, mask, positions)


def warn_of_dropout(model: Any, what: str) -> None:
    """Warn once, where a model is in training mode, of what its dropout disturbs."""
    if getattr(model, "training", False):
        logger.warning_once(
            f"The model is in training mode, so dropout disturbs {what}; call model.eval() first."
        )


def _hook(module: nn.Module, function: Any) -> None:
    """Register a forward hook once; the encoder may serve another generator already."""
    if function in module._forward_hooks.values():
        return
    with _HOOKING:  # twice registered, it would gather what is gathered already
        if function not in module._forward_hooks.values():
            module.register_forward_hook(function)


def _gather_hidden_states(body: nn.Module, args: Any, output: Any) -> Any:
    """Forward hook of the encoder's body: pass on (1, N, H) instead of (B, L, H)."""
    now = _THREAD.running
    if now is None or now.body is not body:
        return None
    this_pass = now.about
    states = output[0]  # the hidden state comes first, whatever its name
    if this_pass.edge is not None:
        states = this_pass.edge.back(states)
    if this_pass.keeps_hidden_state:
        this_pass.last_hidden_state = states
    # One text of N tokens: a head treats all tokens alike and need not know whose they are.
    if this_pass._rows_and_columns is not None:
        chosen = states[this_pass._rows_and_columns]
        if this_pass.holds_head_back:
            this_pass.held_back, chosen = chosen, chosen[:0]
        output[next(iter(output.keys()))] = chosen.unsqueeze(0)
    return output


def _add_to_embeddings(embeddings: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Forward hook of the token embeddings: add what the pass before made of the text."""
    now = _THREAD.running
    if now is None or now.embeddings is not embeddings or now.addition is None:
        return output
    return add_to_embeddings(output, now.addition)


def _check_length(arguments: dict[str, Any], denoiser: PreTrainedModel) -> None:
    """Refuse texts too short for the encoder; counted here, where the padding may be gone."""
    text = arguments.get("input_ids", arguments.get("inputs_embeds"))
    shortest = min_positions(denoiser.config)
    if text is not None and text.shape[1] < shortest:
        raise ValueError(
            f"The encoder {type(denoiser).__name__} takes texts of at least {shortest} tokens with "
            f"their framing, got one of {text.shape[1]}."
        )
