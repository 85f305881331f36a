"""One pass of rows of any lengths, with and without an attention cache: their tokens in one grid.

All that such an encoder does but its attention it does token by token (`core.attention_cache`). So
the tokens of all rows can stand in a grid, one behind the other and without padding, if only the
attention is told which belong together. Positions that a row with a cache computes are as good as
whole texts, so that both share a pass.

Letters: G rows and W columns of the grid, R rows of a part, A tokens of a row, L its length, h
heads, d their width, T places of the grid, n tokens of a part.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import bidirectional_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..core.attention_cache import (
    CachedPass,
    check_hides_padding,
    mask_at,
    twin_of,
    why_no_twin,
)
from ..core.encoder_kinds import first_position

_NAME = __name__
# Arguments with an entry per token, and what stands where the grid has places left.
_FILLERS = {"input_ids": None, "masked_positions": False, "token_type_ids": 0}  # None: padding
_FLAGS = {"output_head_states"}


class Asked(Protocol):
    """What is asked of a network: its arguments, and the pass that a cache makes of it, if any."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """By name, those of `_FILLERS` (R, A)."""

    @property
    def cached(self) -> CachedPass | None:
        """Which positions it computes of which rows; None for all of texts without a cache."""


@dataclass(frozen=True)
class Part:
    """Rows of a grid whose attention is computed at once.

    Attributes:
        source: (R, A) long, the place of the grid that each token comes from; behind the last of a
            row its first one again, whose attention nobody asks for.
        there: (R, A) bool, which are not those.
        index: (R, A) long, where in its text each stands.
        real: (R, L) bool, the tokens of the texts that are no padding.
        cached: the pass of rows with a cache.
    """

    source: Tensor
    there: Tensor
    index: Tensor
    real: Tensor
    cached: CachedPass | None

    @classmethod
    def of(
        cls, number: Tensor, there: Tensor, index: Tensor, real: Tensor, cached: CachedPass | None
    ) -> "Part":
        """Return rows with tokens `there`, (R, A) bool, at the places `number`, (R, A) long."""
        # Not another row's: what is wrong with that one, such as nan, must not reach these.
        first = number.gather(1, there.long().argmax(1, keepdim=True))
        return cls(torch.where(there, number, first), there, index, real, cached)


@dataclass
class _Running:
    """A pass in the middle of its run.

    Attributes:
        parts: of its grid.
        back: (T,) long, which of the tokens of all parts stands at each place of the grid.
        masks: for each mask of the grid, those of the parts.
    """

    parts: Sequence[Part]
    back: Tensor
    masks: list[tuple[Tensor, list[Tensor | None]]] = field(default_factory=list)


class _Thread(threading.local):
    """What this thread is at; the functions of attention look here."""

    running: _Running | None = None


_THREAD = _Thread()


class Grid:
    """Passes of one model in grids.

    Args:
        model: a generator, whose attention can be computed apart from the rest.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._twin = model, None
        self._first = first_position(model.denoiser)

    @classmethod
    def of(cls, model: Any) -> "Grid | None":
        """Return the passes of a model, or None for one that cannot have any."""
        return None if why_no_twin(model) or model.config.self_cond else cls(model)

    @staticmethod
    def takes(arguments: Mapping[str, Any], cached: CachedPass | None) -> bool:
        """Tell whether a question can be put in a grid; not one that asks how its attention drifts.

        Args:
            arguments: of the denoiser, by name.
            cached: the pass of rows with a cache.
        """
        known = {*_FILLERS, *_FLAGS, "attention_mask"}
        if cached is not None:
            known.add("position_ids")  # which tell what `cached` tells
        given = {name for name, value in arguments.items() if value is not None}
        return given <= known and (cached is None or not cached.store.watches)

    def ask(
        self,
        questions: Sequence[Asked],
        pad_token_id: int,
        is_late: bool,
        run: Callable[[Any, Mapping[str, Any]], Any],
    ) -> Any:
        """Make the pass.

        Args:
            questions: that `takes` takes.
            pad_token_id: the encoder's padding.
            is_late: whether hidden states are asked for instead of logits.
            run: makes a pass of a model, of the arguments by name.

        Returns:
            What the model returns: an entry for each position of the first question, the second, ..
        """
        if self._twin is None:
            self._twin = twin_of(self._model, _NAME)
        there = [question.arguments["attention_mask"].bool() for question in questions]
        width = _width(sum(int(tokens.sum()) for tokens in there), max(t.shape[1] for t in there))
        positions = [self._positions(question) for question in questions]
        laid = {
            name: _laid(
                [q.arguments[name][tokens] for q, tokens in zip(questions, there, strict=True)],
                width,
                pad_token_id if filler is None else filler,
            )
            for name, filler in _FILLERS.items()
            if questions[0].arguments.get(name) is not None
        }
        of_tokens = [index[tokens] for index, tokens in zip(positions, there, strict=True)]
        laid["position_ids"] = _laid(of_tokens, width, self._first)
        laid["attention_mask"] = _laid([tokens[tokens].long() for tokens in there], width, 0)
        flags = dict.fromkeys(_FLAGS, True) if is_late else {}
        with _at(_begun(questions, there, laid["input_ids"].numel())):
            return run(self._twin, {**laid, **flags})

    def _positions(self, question: Asked) -> Tensor:
        """Return the positions (R, A) long as the encoder counts them."""
        given: Tensor | None = question.arguments.get("position_ids")
        if given is not None:
            return given
        ids: Tensor = question.arguments["input_ids"]
        if not self._first:
            return torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        # As RoBERTa and its kin do.
        counted = (ids != self._first - 1).long()
        return counted.cumsum(1) * counted + self._first - 1


def _begun(questions: Sequence[Asked], there: Sequence[Tensor], places: int) -> _Running:
    """Return a pass before its run; all rows without a cache are one part.

    Args:
        questions: whose rows it is of.
        there: (R, A) bool of each, which of its tokens are no padding.
        places: T.
    """
    numbers, parts, count = [], [], 0
    for tokens in there:
        numbers.append(count + tokens.flatten().cumsum(0).view(tokens.shape) - 1)
        count += int(tokens.sum())
    plain = [i for i, question in enumerate(questions) if question.cached is None]
    if plain:
        width = max(there[i].shape[1] for i in plain)
        number, rows = (
            torch.cat([F.pad(of[i], (0, width - of[i].shape[1])) for i in plain])
            for of in (numbers, there)
        )
        parts.append(Part.of(number, rows, _columns(rows), rows, None))
    for question, number, rows in zip(questions, numbers, there, strict=True):
        cached = question.cached
        if cached is None:
            continue
        cached.number = 0  # it may have been begun with others, of which one failed
        index = _columns(rows) if cached.active is None else cached.active.index
        parts.append(Part.of(number, rows, index, cached.store.real[cached.rows], cached))
    sources, kept = (
        torch.cat([getattr(part, name).flatten() for part in parts]) for name in ("source", "there")
    )
    back = torch.zeros(places, dtype=torch.long, device=sources.device)
    back[sources[kept]] = kept.nonzero()[:, 0]
    return _Running(parts, back)


def _columns(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)


def _width(count: int, longest: int) -> int:
    """Return the width of a grid for so many tokens, with the fewest places left.

    Args:
        count: n.
        longest: the encoder may take no wider ones than the longest text.
    """
    return -(-count // -(-count // longest))


def _laid(tokens: Sequence[Tensor], width: int, filler: Any) -> Tensor:
    """Lay out what tokens have, (n,) each, in a grid (G, `width`)."""
    row = torch.cat(list(tokens))
    return F.pad(row, (0, -len(row) % width), value=filler).view(-1, width)


@contextlib.contextmanager
def _at(running: _Running) -> Iterator[None]:
    _THREAD.running = running
    try:
        yield
    finally:
        _THREAD.running = None


def _now() -> _Running:
    if _THREAD.running is None:
        raise RuntimeError("The attention of a grid runs within `Grid.ask` alone.")
    return _THREAD.running


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend part by part, as the fused attention of transformers does."""
    now = _now()
    fused: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS["sdpa"]
    whole = [grid.transpose(1, 2).flatten(0, 1) for grid in (query, key, value)]  # (T, h, d)
    attended = []
    for part, mask in zip(now.parts, _masks_of(module, attention_mask, now), strict=True):
        own, keys, values = (tokens[part.source].transpose(1, 2) for tokens in whole)
        if part.cached is not None:
            keys, values = part.cached.meets(keys, values)
            part.cached.number += 1
        attended.append(fused(module, own, keys, values, mask, **options)[0].flatten(0, 1))
    grid = torch.cat(attended)[now.back]
    return grid.view(query.shape[0], query.shape[2], *grid.shape[1:]), None


def _masks_of(module: nn.Module, mask: Tensor | None, now: _Running) -> list[Tensor | None]:
    """Return for each part its mask."""
    for made, masks in now.masks:
        if mask is made:
            return masks
    check_hides_padding(module, mask)
    return [mask_at(part.index, part.real) for part in now.parts]


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any] = bidirectional_mask_function,
    **options: Any,
) -> Tensor:
    """Make the masks of all parts; what is returned, (G, 1, W, W) bool, stands for them."""
    now = _now()
    masks = [mask_at(part.index, part.real, mask_function) for part in now.parts]
    device = now.parts[0].real.device
    whole = torch.ones(batch_size, 1, q_length, kv_length, dtype=torch.bool, device=device)
    now.masks.append((whole, masks))
    return whole


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, _mask)
