"""One pass of any encoder, by two hooks: on its head and on its embeddings.

The LM head runs only where logits are needed, and self-conditioning reaches the input, whatever
the encoder looks like inside: both by forward hooks. What a pass is about belongs to the thread
that makes it and to the two modules it is made with, never to a module alone: several threads may
call one model, and every copy of it and every replica of DataParallel has its own. An encoder that
would confuse padding with text gets rows without padding.

Letters: B batch, L length, H width of the hidden states, V vocabulary, N chosen positions.
"""

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from .encoder_kinds import PADDING_LEAKS, min_positions
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

    # A context variable would do the same, but a compiler cannot look into one.
    running: _Running | None = None


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
        arguments: of the encoder.

    Yields:
        The arguments to make the pass with.
    """
    # Adapters (PEFT) wrap or replace modules of a model that is hooked already.
    hook_encoder(denoiser, self_conditioning)
    # Where N is decided before the body runs, a compiler makes one graph of it and the head.
    positions = this_pass.head_positions
    this_pass._places = None if positions is None else positions.nonzero(as_tuple=True)
    now = _Running(this_pass, denoiser.base_model, denoiser.get_input_embeddings(), None)
    if self_conditioning is not None:
        addition = spare_padding(
            self_conditioning(this_pass.previous_hidden_states, this_pass.has_previous),
            arguments.get("attention_mask"),
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

    def run(of_rows: dict[str, Any], about: EncoderPass) -> tuple[Tensor, Any]:
        _check_length(of_rows, denoiser)
        with running(about, denoiser, self_conditioning, of_rows) as of_rows:
            output = denoiser(**of_rows, **details, return_dict=True)
        # At some positions the hook made one text of all, so the logits are (1, N, V).
        everywhere = about.head_positions is None
        return output.logits if everywhere else output.logits.squeeze(0), output

    kind = denoiser.config.model_type
    if kind not in PADDING_LEAKS or attention_mask is None:
        return run(arguments, this_pass)
    # Once the padding is gone, a mask of ones would say nothing, and some know none.
    arguments = {name: value for name, value in arguments.items() if name != "attention_mask"}
    if attention_mask.all():
        return run(arguments, this_pass)
    if any(details.values()) or this_pass.keeps_hidden_state:
        raise ValueError(
            f"Hidden states and attentions of a padded batch are not available from {kind!r}, "
            f"which runs without padding ({PADDING_LEAKS[kind]}); pass texts of one length."
        )
    logits = run_by_length(
        lambda of_rows, places: run(of_rows, EncoderPass(places))[0],
        arguments,
        attention_mask,
        this_pass.head_positions,
    )
    return logits, {}


def states_of_denoiser(
    denoiser: PreTrainedModel,
    self_conditioning: SelfConditioning | None,
    arguments: dict[str, Any],
    positions: Tensor | None = None,
) -> Tensor:
    """Return what `states_at` does for the body of a denoiser, in a pass with none before it.

    Args:
        denoiser: hooked by `hook_encoder`.
        self_conditioning: of the model, if it has any.
        arguments: of the encoder.
        positions: (B, L) bool; None means everywhere.
    """
    with running(EncoderPass(), denoiser, self_conditioning, arguments) as arguments:
        return states_at(denoiser.base_model, arguments, positions)


def look_back(
    share: float,
    denoiser: PreTrainedModel,
    self_conditioning: SelfConditioning,
    arguments: dict[str, Any],
) -> tuple[Tensor | None, Tensor | None]:
    """Make the pass that self-conditioning looks back on, without gradient.

    For all texts, although some may not use it: every process then does the same work, and shapes
    do not change from batch to batch.

    Args:
        share: probability in [0, 1] with which a text uses it.
        denoiser: hooked by `hook_encoder`.
        self_conditioning: of the model.
        arguments: of the encoder.

    Returns:
        Hidden states (B, L, H), None for a share of 0, and which rows (B,) bool use them, None for
        all.
    """
    if share == 0:
        return None, None
    with torch.no_grad():
        states = states_of_denoiser(denoiser, self_conditioning, arguments)
    if share == 1:
        return states, None  # and torch's generator is left alone
    return states, torch.rand(len(states), device=states.device) < share


def states_at(body: Any, arguments: dict[str, Any], positions: Tensor | None) -> Tensor:
    """Return an encoder's last hidden states.

    Args:
        body: an encoder without a head.
        arguments: of its forward; those that it does not know are left out.
        positions: (B, L) bool; None means everywhere.

    Returns:
        (N, H) at the positions, or (B, L, H).
    """

    def run(of_rows: dict[str, Any], places: Tensor | None) -> Tensor:
        hidden: Tensor = body(**of_rows, return_dict=True)[0]
        return hidden if places is None else hidden[places]

    mask = arguments.get("attention_mask")
    known = argument_names(body)
    arguments = {name: value for name, value in arguments.items() if name in known}
    if body.config.model_type not in PADDING_LEAKS:
        return run(arguments, positions)
    arguments.pop("attention_mask", None)  # FNet does not even know it
    if mask is None or bool(mask.all()):
        return run(arguments, positions)
    return run_by_length(run, arguments, mask, positions)


def argument_names(encoder: Any) -> frozenset[str]:
    """Name the arguments of an encoder's forward, but for what it takes under any name."""
    parameters = inspect.signature(encoder.forward).parameters.values()
    return frozenset(
        parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD
    )


def run_by_length(
    run: Callable[[dict[str, Any], Tensor | None], Tensor],
    arguments: dict[str, Any],
    attention_mask: Tensor,
    positions: Tensor | None,
) -> Tensor:
    """Run a batch without its padding: rows of one length after rows of another.

    Logits come in the order of the lengths and are put back in that of the rows. With logits wanted
    at the places marked x, and - for padding:

        row 0   a  x  x     length 3      of length 2:  [x of row 1]           places [2]
        row 1   d  x  -     length 2      of length 3:  [x x of 0, x of 2]     places [0, 1, 3]
        row 2   f  g  x     length 3      result:       [x x of 0, x of 1, x of 2]

    Args:
        run: given arguments and positions of some rows, (b, l) bool or None, returns their logits,
            (n, V) or (b, l, V).
        arguments: of the encoder, each (B, L) or (B, L, ...).
        attention_mask: (B, L), 1 at real tokens, on any side.
        positions: (B, L) bool, where logits are wanted; None means everywhere.

    Returns:
        Logits of the same dtype, (N, V) at the positions or (B, L, V); 0 at padding.

    Raises:
        ValueError: for an argument without a value per token.
    """
    real = attention_mask.bool()
    for name, value in arguments.items():
        if not isinstance(value, Tensor) or value.shape[:2] != real.shape:
            raise ValueError(
                f"`{name}` must be of shape (batch, length) = {tuple(real.shape)} for this encoder "
                "where a batch is padded: it runs rows of each length on their own."
            )
    lengths = real.sum(1)
    different = lengths[lengths > 0].unique().tolist()
    if not different:
        raise ValueError("`attention_mask` marks no real token (1) in any row of the batch.")
    if len(different) > 1:
        logger.warning_once(
            "This encoder runs without padding: rows of each length of a batch run on their own. "
            "Batches of texts of similar length are faster."
        )
    wanted = torch.ones_like(real) if positions is None else positions
    # (B, L): the place of each wanted position among the N logits, counted row by row
    place = wanted.flatten().cumsum(0).view_as(wanted) - 1
    logits, places = [], []
    for length in different:  # a row without a real token is in none of them, its logits stay 0
        rows = lengths == length
        chosen = _without_padding(wanted[rows], real[rows])
        part = run(
            {name: _without_padding(value[rows], real[rows]) for name, value in arguments.items()},
            None if positions is None else chosen,
        )
        logits.append(part.flatten(0, -2))
        places.append(_without_padding(place[rows], real[rows])[chosen])
    found = torch.cat(logits)
    # Not in place, so that the gradient finds its way back to each length's own pass.
    result = found.new_zeros(int(wanted.sum()), found.shape[-1])
    result = result.index_copy(0, torch.cat(places), found)
    return result.unflatten(0, real.shape) if positions is None else result


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
    # The hidden state comes first, whatever its name.
    if this_pass.keeps_hidden_state:
        this_pass.last_hidden_state = output[0]
    # One text of N tokens: a head treats all tokens alike and need not know whose they are.
    if this_pass._places is not None:
        output[next(iter(output.keys()))] = output[0][this_pass._places].unsqueeze(0)
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


def _without_padding(rows: Tensor, real: Tensor) -> Tensor:
    """Keep the real tokens of rows that have equally many, (b, L, ...) -> (b, l, ...)."""
    return rows[real].unflatten(0, (len(rows), -1))
