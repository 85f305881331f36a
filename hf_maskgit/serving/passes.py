"""What rows ask of the networks, joined into passes and taken apart again.

Letters: B rows of one question, L its length, H width of the hidden states, N its positions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.attention_cache import CachedPass, made_again
from ..core.chunked_head import run_head
from ..core.linear_maps import quick_products
from ..core.packed_weights import PackedWeights
from .grid import Grid


class Network(NamedTuple):
    """A network that questions are put to.

    Attributes:
        run: asks it, of the model, the arguments by name, and where weights are packed.
        positions: the argument (B, L) bool that says where answers are wanted.
        per_position: outputs with one entry per such position, (N, ..).
        per_row: outputs with one entry per row and place, (B, L, ..).
    """

    run: Callable[[Any, Mapping[str, Any], PackedWeights | None], Any]
    positions: str
    per_position: tuple[str, ...]
    per_row: tuple[str, ...] = ()


def _logits(model: Any, arguments: Mapping[str, Any], packs: PackedWeights | None) -> Any:
    with quick_products(model, packs):
        return model(**arguments)


def _scores(
    model: Any, arguments: Mapping[str, Any], packs: PackedWeights | None
) -> SimpleNamespace:
    return SimpleNamespace(scores=model.score_tokens(**arguments))


NETWORKS = {
    "denoiser": Network(
        _logits,
        "masked_positions",
        ("logits", "head_states"),
        ("last_hidden_state",),
    ),
    "critic": Network(_scores, "positions", ("scores",)),
}
# Arguments with an entry per row, and what stands at padding; those of others are joined as they
# are, and must be equal.
_FILLERS = {
    "input_ids": None,  # the model's own padding
    "attention_mask": 0,
    "masked_positions": False,
    "positions": False,
    "token_type_ids": 0,
    "previous_hidden_states": 0.0,
}
_PER_ROW = (*_FILLERS, "has_previous")
_LATE = "output_head_states"


@dataclass(frozen=True, eq=False)
class Question:
    """What one decoding asks of a network.

    Attributes:
        network: row of `NETWORKS`.
        arguments: of the network, by name.
        cached: the pass of rows with an attention cache.
        twin: what they ask where they go by themselves.
    """

    network: str
    arguments: Mapping[str, Any]
    cached: CachedPass | None = None
    twin: Any = None

    @property
    def shape(self) -> tuple[int, int]:
        """B and L."""
        ids: Tensor = self.arguments["input_ids"]
        return int(ids.shape[0]), int(ids.shape[1])

    @property
    def kind(self) -> tuple[Any, ...] | None:
        """What questions have in common that share a pass; None for one that goes by itself."""
        given = {name: value for name, value in self.arguments.items() if value is not None}
        needed = {"input_ids", "attention_mask", NETWORKS[self.network].positions}
        if not needed <= given.keys() or "labels" in given:
            return None
        names = given.keys() - {_LATE}
        if self.cached is not None:
            if not self.fits_grid:
                return None
            names -= {"position_ids"}  # rows share a pass with those that have none
        same = tuple(sorted((name, given[name]) for name in names if name not in _PER_ROW))
        if not all(isinstance(value, bool) for _, value in same):
            return None
        return self.network, tuple(sorted(names)), same

    @property
    def fits_grid(self) -> bool:
        """Whether it can be put with others of any length, see `grid`."""
        return self.network == "denoiser" and Grid.takes(self.arguments, self.cached)

    @property
    def is_late(self) -> bool:
        """Whether hidden states are asked for, of which logits are computed later."""
        return bool(self.arguments.get(_LATE))

    def ask(self, model: Any, packs: PackedWeights | None = None) -> Any:
        """Put the question by itself; see `ask_together`."""
        if self.cached is None:
            return NETWORKS[self.network].run(model, self.arguments, packs)
        with made_again(self.cached):
            return NETWORKS[self.network].run(self.twin, self.arguments, packs)


class Grouped(Protocol):
    """What is put together: questions, or steps of the sampler."""

    @property
    def kind(self) -> Any:
        """What those have in common that go together; None for one that goes by itself."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and length."""


def grouped(
    questions: Sequence[Grouped],
    most_places: int,
    any_length: Callable[[Any], bool] = lambda _: False,
) -> list[list[int]]:
    """Sort questions into passes: of one kind, of similar lengths, not too many places at once.

    Args:
        questions: in any order, or steps.
        most_places: rows times length of a pass; a question beyond it goes by itself.
        any_length: tells of a question whether others of any length cost no padding beside it.

    Returns:
        Indices of the questions of each pass.
    """
    kinds: dict[Any, list[int]] = {}
    for number, question in enumerate(questions):
        kind = question.kind
        kinds.setdefault(("alone", number) if kind is None else kind, []).append(number)
    passes = []
    for members in kinds.values():
        current: list[int] = []
        rows = 0
        # The longest first, so that the first of a pass says how wide it is.
        for number in sorted(members, key=lambda i: -questions[i].shape[1]):
            count, length = questions[number].shape
            width = questions[current[0]].shape[1] if current else length
            # Beyond half of a pass, padding costs more than a pass of its own.
            apart = 2 * length < width and not any_length(questions[number])
            if current and (apart or (rows + count) * width > most_places):
                passes.append(current)
                current, rows = [], 0
            current.append(number)
            rows += count
        passes.append(current)
    return passes


def ask_together(
    model: Any,
    questions: Sequence[Question],
    pad_token_id: int,
    packs: PackedWeights | None = None,
    grid: Grid | None = None,
) -> list[Any]:
    """Put questions of one kind in one pass, and give each its own part of the answer.

    Args:
        model: a generator.
        questions: of one `Question.kind`.
        pad_token_id: the encoder's padding.
        packs: weights that are kept from pass to pass, packed; None packs none.
        grid: of the model, where rows of other lengths, or some with a cache, share a pass.

    Returns:
        For each question what the network alone would have returned, up to rounding.
    """
    if len(questions) == 1:
        return [questions[0].ask(model, packs)]
    network = NETWORKS[questions[0].network]

    def run(asked: Any, arguments: Mapping[str, Any]) -> Any:
        return network.run(asked, arguments, packs)

    if grid is not None and _belongs_in_grid(questions):
        late = any(question.is_late for question in questions)
        output = grid.ask(questions, pad_token_id, late, run)
    else:
        output = run(model, _arguments(questions, pad_token_id))
    counts = [int(question.arguments[network.positions].sum()) for question in questions]
    rows = [question.shape[0] for question in questions]
    parts: list[dict[str, Any]] = [{} for _ in questions]
    for names, sizes in ((network.per_position, counts), (network.per_row, rows)):
        for name in names:
            whole = getattr(output, name, None)
            for i, part in enumerate([] if whole is None else whole.split(sizes)):
                cut = part[:, : questions[i].shape[1]] if name in network.per_row else part
                parts[i][name] = cut
    _add_logits(model, questions, parts, packs)
    absent = dict.fromkeys((*network.per_position, *network.per_row))
    return [SimpleNamespace(**{**absent, **part}) for part in parts]


def _belongs_in_grid(questions: Sequence[Question]) -> bool:
    """Tell whether questions of one kind go in a grid: none need be padded there."""
    differ = len({question.shape[1] for question in questions}) > 1
    cached = any(question.cached is not None for question in questions)
    return (differ or cached) and all(question.fits_grid for question in questions)


def _arguments(questions: Sequence[Question], pad_token_id: int) -> dict[str, Any]:
    """Join the arguments of questions, padded to the longest."""
    width = max(question.shape[1] for question in questions)
    # Some may want hidden states where others want logits: the pass is one, and behind it the head.
    late = next((question for question in questions if question.is_late), questions[0])
    return {
        name: _joined([q.arguments[name] for q in questions], name, width, pad_token_id)
        if name in _PER_ROW
        else value
        for name, value in late.arguments.items()
        if value is not None
    }


def _add_logits(
    model: Any,
    questions: Sequence[Question],
    parts: Sequence[dict[str, Any]],
    packs: PackedWeights | None,
) -> None:
    """Compute the logits of those that asked for them and got hidden states with the others."""
    early = [
        part
        for question, part in zip(questions, parts, strict=True)
        if "head_states" in part and not question.is_late
    ]
    if not early:
        return
    states = [part.pop("head_states") for part in early]
    logits = run_head(model.denoiser, torch.cat(states), packs=packs)
    for part, own in zip(early, logits.split([len(one) for one in states]), strict=True):
        part["logits"] = own


def _joined(values: Sequence[Tensor], name: str, width: int, pad_token_id: int) -> Tensor:
    if name not in _FILLERS:
        return torch.cat(list(values))
    filler = pad_token_id if _FILLERS[name] is None else _FILLERS[name]
    return torch.cat([_widened(value, width, filler) for value in values])


def _widened(value: Tensor, width: int, filler: Any) -> Tensor:
    """Pad (B, L) or (B, L, H) to (B, `width`, ..)."""
    missing = width - value.shape[1]
    if not missing:
        return value
    sides = (0, missing) if value.ndim == 2 else (0, 0, 0, missing)
    return F.pad(value, sides, value=filler)
