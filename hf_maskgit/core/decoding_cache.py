"""The denoiser as the sampler asks it, and the same with an attention cache between the passes.

The sampler knows of no cache: it asks a callable for logits at some positions of some rows. With a
cache, the callable compares each row with what it was at its last full pass, and runs the rest of
it no more. This approximates: what is not run does not learn of what was revealed beside it, until
the row's next full pass.

Letters: B rows of a decoding, R rows of a pass, L length, A active positions, V vocabulary, N
positions that are asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers.utils import logging

from .attention_cache import Active, Store, caching, why_no_twin
from .chunked_head import can_hold_back, is_worth_holding_back, late_logits
from .decoding_turn import LogitsFn
from .encoder_kinds import first_position
from .equal_rows import EqualRows
from .linear_maps import is_compiled, quick_products
from .modeling_output import by_name
from .options import option, options_of
from .packed_weights import PackedWeights
from .position_logits import LateLogits, joined
from .self_conditioning import Memory

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Refresh:
    """When a row's next pass is a full one, besides the first of each block.

    Attributes:
        due: of (R,) long, passes since the last full one and that one, and (R,) float, the drift
            (see `Store`), which rows (R,) bool.
        reads: the options that say so.
        help: what it is, for the help of the option.
        watches: whether it goes by the drift.
    """

    due: Callable[["CacheOptions", Tensor, Tensor], Tensor]
    reads: tuple[str, ...]
    help: str
    watches: bool = False


REFRESHES = {
    "interval": Refresh(
        lambda options, age, drift: age >= options.cache_refresh_interval,
        ("cache_refresh_interval",),
        "every `cache_refresh_interval`-th pass",
    ),
    "adaptive": Refresh(
        lambda options, age, drift: drift > options.cache_drift,
        ("cache_drift",),
        "a pass whose active positions attend elsewhere than at the last full one, by more than "
        "`cache_drift` (after Elastic-Cache, arXiv 2510.14973)",
        watches=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """The options of the cache."""

    use_cache: bool | None = option(
        None,
        "Keep keys and values of attention between passes and compute the masks of the block, and "
        "what was revealed since the last full pass, alone. This approximates; unset, it is on "
        "with `block_length`. Encoders that cannot do without.",
        bool,
    )
    cache_refresh: str = option(
        "interval",
        "Which passes are full ones, besides the first of each block: "
        + "; ".join(f'"{name}", {row.help}' for name, row in REFRESHES.items())
        + ".",
        choices=tuple(REFRESHES),
    )
    cache_refresh_interval: int = option(
        8, "Every how many passes one is full; 1 is exact, as without a cache.", int, low=1
    )
    cache_drift: float = option(
        0.1,
        "1 - cosine of where the active positions attend to, beyond which the next pass is full.",
        int,
        float,
        low=0,
        high=1,
    )


class Denoiser:
    """The denoiser of packed rows.

    With self-conditioning it remembers each row's previous pass.

    Args:
        model: a generator.
        real: (B, L) bool, the tokens that are no padding.
        token_type_ids: (B, L) long or None.
        packs: the weights of the decoding; None is a place for them.
    """

    def __init__(
        self,
        model: Any,
        real: Tensor,
        token_type_ids: Tensor | None,
        packs: PackedWeights | None = None,
    ) -> None:
        self.model, self.real, self.types = model, real, token_type_ids
        self._memory = Memory(real) if model.config.self_cond else None
        self._packs = PackedWeights() if packs is None else packs
        # Known for the whole decoding: it goes over all modules.
        compiled = is_compiled(model)
        self._products = quick_products(model, self._packs, compiled)
        # Behind the first pass, texts are what was drawn. A compiler would make a graph for that
        # pass alone, and dropout is another one in every row.
        self._may_be_equal = not (getattr(model, "training", False) or compiled)

    def __call__(self, rows: Tensor, text: Tensor, positions: Tensor) -> Tensor | LateLogits:
        """Return the logits of a full pass, see `LogitsFn`."""
        equal = self._equal_rows(rows, text) if self._may_be_equal and len(rows) > 1 else None
        self._may_be_equal = False
        if equal is None:
            return self.ask(self.model, rows, text, positions)
        asked, which = equal.asked(positions)
        logits = self.ask(self.model, rows[equal.read], text[equal.read], asked)
        if self._memory is not None:
            self._memory.hand_on(rows[equal.read][equal.text], rows)
        return logits.only(which) if isinstance(logits, LateLogits) else logits[which]

    def _equal_rows(self, rows: Tensor, text: Tensor) -> EqualRows | None:
        types = () if self.types is None else (self.types[rows],)
        return EqualRows.of(text, self.real[rows], *types)

    def ask(
        self,
        model: Any,
        rows: Tensor,
        text: Tensor,
        positions: Tensor,
        active: Active | None = None,
    ) -> Tensor | LateLogits:
        """Return the logits of a pass that reads some positions alone.

        They are computed late where all at once would be much.

        Args:
            model: the generator, or its twin.
            rows: (R,) long, indices of the rows.
            text: (R, L) long.
            positions: (R, L) bool, where logits are wanted.
            active: the positions that are read, all of `positions` among them; None for all.
        """
        inputs = {
            "input_ids": text,
            "attention_mask": self.real[rows].long(),
            "masked_positions": positions,
        }
        if self.types is not None:
            inputs["token_type_ids"] = self.types[rows]
        before = {} if self._memory is None else self._memory.recall(rows)
        if active is not None:
            inputs = {name: active.pick(value) for name, value in inputs.items()}
            inputs["position_ids"] = active.index + first_position(model.denoiser)
            if before:
                whole = before["previous_hidden_states"]
                before = {**before, "previous_hidden_states": active.pick(whole)}
        late = by_name(self.model.config)
        late |= {"output_head_states": True} if self._holds_back(positions) else {}
        inputs = self.model.prepare_inputs_for_generation(**inputs, **late)
        remembers = {} if self._memory is None else {"output_last_hidden_state": True}
        with self._products:
            output = model(**inputs, **before, **remembers)
        if self._memory is None:
            return self._logits_of(model, output)
        states = output.last_hidden_state
        if active is not None:  # elsewhere, they stay those of the pass before
            active.put(whole, states)
            states = whole
        self._memory.keep(rows, states)
        return self._logits_of(model, output)

    def _holds_back(self, positions: Tensor) -> bool:
        """Tell whether the head had best not run on all positions at once."""
        denoiser = getattr(self.model, "denoiser", None)  # a stand-in of the model may have none
        if denoiser is None or not is_worth_holding_back(denoiser, positions.numel()):
            return False
        return can_hold_back(self.model, denoiser)

    def _logits_of(self, model: Any, output: Any) -> Tensor | LateLogits:
        states = getattr(output, "head_states", None)
        if states is None:
            return cast(Tensor, output.logits)
        return late_logits(model.denoiser, states, self._packs)


class CachedDenoiser:
    """A denoiser whose passes are mostly partial; see the module.

    Active in a partial pass are the positions that are asked for, all masks of the block that they
    belong to, and every position whose token is another one than at the row's last full pass.

    Args:
        denoiser: of the B rows.
        block: (B, L) long, which block each position belongs to.
        options: of the cache.
    """

    def __init__(self, denoiser: Denoiser, block: Tensor, options: CacheOptions) -> None:
        self._denoiser, self._block, self._options = denoiser, block, options
        self._refresh = REFRESHES[options.cache_refresh]
        self._twin = denoiser.model.attention_twin()
        self._store = Store(denoiser.real, self._refresh.watches)
        # What each row was at its last full pass, and how many passes ago, with that one; 0 for
        # a row that had none.
        self._text = torch.zeros_like(block)
        self._in_block = torch.zeros_like(block[:, 0])
        self._age = torch.zeros_like(block[:, 0])

    def __call__(self, rows: Tensor, text: Tensor, positions: Tensor) -> Tensor | LateLogits:
        """Return the logits (N, V), see `LogitsFn`."""
        in_block = self._block[rows].masked_fill(~positions, -1).amax(1)
        age = self._age[rows]
        stale = (age == 0) | (in_block != self._in_block[rows])
        stale |= self._refresh.due(self._options, age, self._store.drift[rows])
        mask = self._denoiser.model.config.mask_token_id
        here = (self._block[rows] == in_block[:, None]) & (text == mask)
        active = positions | here | (self._denoiser.real[rows] & (text != self._text[rows]))
        # Each row goes by itself, whatever others do, so that a text does not depend on them.
        found = []
        for part, ask in ((stale, self._full), (~stale, self._partial)):
            if bool(part.any()):
                logits = ask(rows[part], text[part], positions[part], active[part])
                found.append((part[positions.nonzero()[:, 0]], logits))
        self._in_block[rows] = in_block
        if len(found) == 1:
            return found[0][1]
        return joined(found)

    def _full(
        self, rows: Tensor, text: Tensor, positions: Tensor, active: Tensor
    ) -> Tensor | LateLogits:
        self._text[rows], self._age[rows] = text, 1
        watched = None
        if self._store.watches:
            masks = (text == self._denoiser.model.config.mask_token_id) & active
            watched = Active.of(masks | positions)
        with caching(self._store, rows, None, watched):
            return self._denoiser.ask(self._twin, rows, text, positions)

    def _partial(
        self, rows: Tensor, text: Tensor, positions: Tensor, active: Tensor
    ) -> Tensor | LateLogits:
        self._age[rows] += 1
        some = Active.of(active)
        with caching(self._store, rows, some):
            return self._denoiser.ask(self._twin, rows, text, positions, some)


def cache_of(model: Any, options: Any) -> CacheOptions:
    """Resolve the options of the cache for a model; a warning says where it has none.

    Args:
        model: a generator.
        options: of `generate`, by name.
    """
    values = {name: getattr(options, name) for name in options_of(CacheOptions)}
    asked = values["use_cache"]
    wanted = options.block_length is not None if asked is None else asked
    fault = why_no_twin(model) if wanted else None
    if fault and asked:
        logger.warning_once(
            f"use_cache=True has no effect on this model: {fault}. Every pass reads the whole text."
        )
    # A full pass need not keep what no partial one will use.
    interval = not REFRESHES[values["cache_refresh"]].watches
    exact = interval and values["cache_refresh_interval"] == 1
    values["use_cache"] = bool(wanted and not fault and not exact)
    return CacheOptions(**values)


def make_denoiser(
    model: Any,
    real: Tensor,
    token_type_ids: Tensor | None,
    block: Tensor,
    options: CacheOptions,
    packs: PackedWeights,
) -> LogitsFn:
    """Return the denoiser of packed rows, with a cache where the options say so.

    Args:
        model: a generator.
        real: (B, L) bool, the tokens that are no padding.
        token_type_ids: (B, L) long or None.
        block: (B, L) long, which block each position belongs to.
        options: of the cache, as `cache_of` returns them.
        packs: the weights of the decoding.
    """
    denoiser = Denoiser(model, real, token_type_ids, packs)
    return CachedDenoiser(denoiser, block, options) if options.use_cache else denoiser
