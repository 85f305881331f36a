"""Keys and values of attention kept between passes, so that a pass computes a few positions alone.

A full pass keeps the keys and values of every layer. A partial pass sends some positions of each
row through the encoder: their queries meet the kept keys and values of the whole row, in which
those of these positions are replaced by fresh ones. Whatever else an encoder does, it does position
by position, so that nothing but the attention has to know (Fast-dLLM, arXiv 2505.22618, keeps them
around a block in the same way).

Attention functions and masks come in through the interfaces of transformers. No model is changed
for it, not even for a while: a twin that shares all weights has a configuration of its own.

Letters: B rows of a decoding, R rows of a pass, L length, A active positions, h heads that have
keys, d their width, N active positions of all rows.
"""

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import bidirectional_mask_function, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .encoder_kinds import CACHES_ATTENTION

# Of this module, since a checkpoint may bring a copy of it with a state of its own.
NAME = __name__

Model = TypeVar("Model", bound=nn.Module)


@dataclass
class Active:
    """Some positions of each row, moved together to the left.

    Attributes:
        index: (R, A) long, the positions in their order; 0 behind the last of a row.
        there: (R, A) bool, False behind the last of a row.
    """

    index: Tensor
    there: Tensor
    places: tuple[Tensor, ...] = field(init=False)  # two of (N,): row and place of each

    def __post_init__(self) -> None:
        self.places = self.there.nonzero(as_tuple=True)

    @classmethod
    def of(cls, positions: Tensor) -> "Active":
        """Name the positions of (R, L) bool; A is the most of a row."""
        most = int(positions.sum(1).max())
        first = positions.logical_not().long().argsort(dim=1, stable=True)[:, :most]
        there = positions.gather(1, first)
        return cls(first.masked_fill(~there, 0), there)

    def pick(self, columns: Tensor, elsewhere: Any = 0) -> Tensor:
        """Take (R, L, ...) at the positions, (R, A, ...); `elsewhere` behind the last of a row."""
        rows = torch.arange(len(self.index), device=self.index.device)[:, None]
        picked = columns[rows, self.index]
        missing = ~self.there[(..., *(None,) * (picked.ndim - 2))]
        return picked.masked_fill(missing, elsewhere)

    def put(self, columns: Tensor, values: Tensor) -> None:
        """Write (R, A, ...) at the positions of (R, L, ...), in place."""
        row, place = self.places
        columns[row, self.index[row, place]] = values[row, place]


class Store:
    """Keys and values of each attention that a pass runs, in the order in which it runs them.

    By their order and not by their modules: ALBERT runs one module many times in a pass.

    Args:
        real: (B, L) bool, the tokens that are no padding.
        watches: measure how far the attention drifts.

    Attributes:
        drift: (B,) float in [0, 1], how far the attention of each row's last partial pass had
            drifted from that of its last full one: 1 - the cosine of how much the active positions
            attend to each token, of the layer where that is most. 0 where nothing was measured.
    """

    def __init__(self, real: Tensor, watches: bool = False) -> None:
        self.real, self.watches = real, watches
        self.drift = torch.zeros(len(real), device=real.device)
        self._kept: list[tuple[Tensor, Tensor]] = []  # of (B, L, h, d)
        self._attended: list[Tensor] = []  # of (B, L): how much each token is attended to

    def keep(self, number: int, rows: Tensor, key: Tensor, value: Tensor) -> None:
        """Keep (R, h, L, d) of all positions of some rows (R,)."""
        fresh = (key.transpose(1, 2), value.transpose(1, 2))
        if number == len(self._kept):
            first, second = (new.new_empty(len(self.real), *new.shape[1:]) for new in fresh)
            self._kept.append((first, second))
        for kept, new in zip(self._kept[number], fresh, strict=True):
            kept.index_copy_(0, rows, new)

    def renew(
        self, number: int, rows: Tensor, active: Active, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Replace those of active positions, (R, h, A, d), and return the rows' (R, h, L, d)."""
        row, place = active.places
        where = rows[row], active.index[row, place]
        found = []
        for kept, new in zip(self._kept[number], (key, value), strict=True):
            kept[where] = new.transpose(1, 2)[row, place]
            # All rows of the decoding need no copy: they come in their order.
            whole = kept if len(rows) == len(kept) else kept[rows]
            found.append(whole.transpose(1, 2))
        return found[0], found[1]

    def watch(self, number: int, rows: Tensor, attended: Tensor, is_reference: bool) -> None:
        """Take note of how much each token (R, L) is attended to in a layer."""
        if is_reference:
            if number == len(self._attended):
                self._attended.append(attended.new_zeros(self.real.shape))
            self._attended[number][rows] = attended
            self.drift[rows] = 0
            return
        likeness = torch.cosine_similarity(attended, self._attended[number][rows], dim=1)
        drift = (1 - likeness).clamp(0, 1).to(self.drift.dtype)
        # The first layer begins a pass anew.
        self.drift[rows] = drift if number == 0 else torch.maximum(self.drift[rows], drift)


@dataclass
class CachedPass:
    """A pass in the middle of its run.

    Attributes:
        store: of the decoding.
        rows: (R,) long, rows of the decoding that it is about.
        active: the positions that it computes; None in a full pass.
        watched: those whose attention is measured, if any.
        number: of the attention that comes next.
        masks: that this module made for it.
    """

    store: Store
    rows: Tensor
    active: Active | None
    watched: Active | None
    number: int = 0
    masks: list[Tensor | None] = field(default_factory=list)

    def meets(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the keys and values (R, h, L or A, d) of the next attention; return (R, h, L, d)."""
        if self.active is None:
            self.store.keep(self.number, self.rows, key, value)
            return key, value
        return self.store.renew(self.number, self.rows, self.active, key, value)


class _Thread(threading.local):
    """What this thread is at; the functions of attention look here."""

    def __init__(self) -> None:
        self.running: CachedPass | None = None

    @property
    def now(self) -> CachedPass:
        """The pass that is running.

        Raises:
            RuntimeError: for none.
        """
        if self.running is None:
            raise RuntimeError("The twin of a model runs within `caching` alone.")
        return self.running


_THREAD = _Thread()


@contextlib.contextmanager
def caching(
    store: Store, rows: Tensor, active: Active | None, watched: Active | None = None
) -> Iterator[None]:
    """Let a twin's attention within keep what it computes, or use what is kept.

    Args:
        store: of the decoding; it is changed.
        rows: (R,) long, rows of the decoding that the pass is about, each once, in their order.
        active: the positions that the pass computes; None for all, which are then kept.
        watched: the positions whose attention is compared from pass to pass, where the store
            watches; in a partial pass the active ones.

    Raises:
        RuntimeError: for a pass that was none of the twin's.
    """
    watched = (active or watched) if store.watches else None
    running = CachedPass(store, rows, active, watched)
    with _at(running):
        yield
    if running.number == 0:
        raise RuntimeError("The pass ran no attention of the twin, so that nothing was kept.")


@contextlib.contextmanager
def _at(running: CachedPass | None) -> Iterator[None]:
    before, _THREAD.running = _THREAD.running, running
    try:
        yield
    finally:
        _THREAD.running = before


@contextlib.contextmanager
def set_aside() -> Iterator[CachedPass]:
    """Hand over the pass of the `caching` around it: within, this thread is at none."""
    # Others may be made within, and what belongs to a thread would be theirs too.
    running = _THREAD.now
    with _at(None):
        yield running


def made_again(running: CachedPass) -> contextlib.AbstractContextManager[None]:
    """Let a twin's attention within go by a pass that was set aside, from its beginning."""
    # It may have been begun: what is kept twice at the same places is kept once.
    running.number, running.masks = 0, []
    return _at(running)


def twin_of(model: Model, name: str = NAME) -> Model:
    """Return a model of the same weights, not copied, whose attention goes by `caching`.

    Args:
        model: a generator.
        name: of another attention that it is to go by, as transformers knows it.
    """
    shared: list[Any] = [*model.parameters(), *model.buffers()]
    for module in model.modules():  # a hook may hold what it likes, such as a whole program
        shared += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    twin = copy.deepcopy(model, {id(one): one for one in shared})
    for module in twin.modules():
        if hasattr(module, "config"):
            cast(Any, module).config._attn_implementation = name
    return twin


def why_no_twin(model: Any) -> str | None:
    """Say why a model's passes cannot be computed in part, as the end of a sentence; None if so.

    Args:
        model: a generator.
    """
    if getattr(model, "denoiser", None) is None:
        return "it is no encoder of transformers"
    kind = model.denoiser.config.model_type
    if kind not in CACHES_ATTENTION:
        return f"the attention of {kind!r} is not computed through the interface of transformers"
    if "prepare_inputs_for_generation" in vars(model):
        return "something else prepares its inputs, such as a learned prompt"
    modules = list(model.modules())
    apart = any(hasattr(one, "_hf_hook") or hasattr(one, "__deepcopy__") for one in modules)
    if apart or any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        return "its weights are spread over devices or processes"
    if any("forward" in vars(module) for module in modules):  # which runs the model, not its twin
        return "the `forward` of a part of it was replaced, as a compiler may do"
    return None


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend as the fused attention of transformers does, to keys and values that may be kept."""
    now = _THREAD.now
    if now.active is not None:
        attention_mask = _rows_of_mask(module, attention_mask, now)
    key, value = now.meets(key, value)
    if now.watched is not None:
        attended = _attended(now, query, key, attention_mask, options.get("scaling"))
        now.store.watch(now.number, now.rows, attended, is_reference=now.active is None)
    now.number += 1
    fused: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS["sdpa"]
    return fused(module, query, key, value, attention_mask, **options)


def _rows_of_mask(module: nn.Module, mask: Tensor | None, now: CachedPass) -> Tensor | None:
    """Return the mask of a partial pass, (R, 1, A, L) or (R, 1, 1, L).

    Raises:
        RuntimeError: for a mask that an encoder made in a way of its own, unless it hides padding
            alone.
    """
    if any(mask is made for made in now.masks):
        return mask
    check_hides_padding(module, mask)
    return now.store.real[now.rows][:, None, None]


def check_hides_padding(module: nn.Module, mask: Tensor | None) -> None:
    """Refuse a mask that an encoder made in a way of its own, unless it hides padding alone.

    Raises:
        RuntimeError: for another one.
    """
    if mask is None or mask.shape[-2] != 1:  # LayoutLM's hides padding, from every query alike
        raise RuntimeError(
            f"{type(module).__name__} masks its attention in a way of its own, so that a part of a "
            "text cannot be computed alone."
        )


def _attended(
    now: CachedPass, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None
) -> Tensor:
    """Return how much the watched positions attend to each token, (R, L), summed over heads.

    Args:
        now: the pass.
        query: (R, H, L or A, d), of all positions in a full pass.
        key: (R, h, L, d).
        mask: bool, broadcast over (R, H, L or A, L); None masks nothing.
        scaling: of the scores; None is 1 / sqrt(d).
    """
    watched = cast(Active, now.watched)
    if now.active is None:
        query = watched.pick(query.transpose(1, 2)).transpose(1, 2)
        if mask is not None and mask.shape[-2] != 1:
            mask = watched.pick(mask.transpose(1, 2), True).transpose(1, 2)
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if mask is not None:
        scores = (
            scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        )
    weights = scores.float().softmax(-1)
    return (weights * watched.there[:, None, :, None]).sum((1, 2))


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any] = bidirectional_mask_function,
    **options: Any,
) -> Tensor | None:
    """Make the mask of a pass, (R, 1, A, L) bool in a partial one; None where nothing is masked."""
    now = _THREAD.now
    if now.active is None:
        return sdpa_mask(batch_size, q_length, kv_length, mask_function=mask_function, **options)
    mask = mask_at(now.active.index, now.store.real[now.rows], mask_function)
    now.masks.append(mask)
    return mask


def mask_at(
    index: Tensor, real: Tensor, mask_function: Callable[..., Any] = bidirectional_mask_function
) -> Tensor | None:
    """Return what some positions of each row see, (R, 1, A, L) bool; None where that is all.

    Args:
        index: (R, A) long, the positions.
        real: (R, L) bool, the tokens of the row that are no padding.
        mask_function: transformers' word for what sees what.
    """
    if mask_function is bidirectional_mask_function and bool(real.all()):
        return None
    rows, length = real.shape
    row = torch.arange(rows, device=real.device)[:, None, None, None]
    place = torch.arange(length, device=real.device)
    seen = mask_function(row, row.new_zeros(()), index[:, None, :, None], place)
    return (seen & real[:, None, None]).expand(-1, 1, -1, -1)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
