"""Steps of the sampler that rows of several jobs make together.

A step is a pure function of its rows, of their noise and of what the networks say of them
(`core.decoding.reveal_step`), and no row of it looks at another. So rows of equal options make one
step: side by side, padded to the longest. What it asks of the networks each job asks of its own
rows, which knows what stands before their text and what they were told in the pass before.

Letters: R rows, L length, V vocabulary, N positions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation import logits_process

from ..core.decoding import reveal_step
from ..core.decoding_state import DecodingState, Pass
from ..core.decoding_turn import CriticFn, LogitsFn
from ..core.position_logits import LateLogits, joined
from ..core.sampler import Sampler
from ..core.sampler_contenders import Contenders


@dataclass(frozen=True, eq=False)
class Step:
    """A step that a job wants made; the arguments of `reveal_step`."""

    logits_fn: LogitsFn
    rows: Tensor
    state: DecodingState
    asked: Pass
    uniforms: Tensor
    sampler: Sampler
    critic_fn: CriticFn | None = None
    contenders: Contenders | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """R and L."""
        rows, length = self.state.text.shape
        return rows, length

    @property
    def kind(self) -> Any:
        """What steps have in common that can be made together; None for one made by itself."""
        if self.state.patterns is not None or self.state.allowed is not None:
            return None
        of_sampler = kind_of(self.sampler)
        return None if of_sampler is None else (of_sampler, self.state.num_alternatives)

    def alone(self, networks: "Networks") -> DecodingState:
        """Make the step of these rows alone."""
        asked = self.rows, self.state, self.asked, self.uniforms, self.sampler
        return reveal_step(networks.logits, *asked, networks.scores, self.contenders)


def kind_of(sampler: Sampler) -> Any:
    """Return what is equal, and can be looked up, for samplers that do the same; None for no other.

    Args:
        sampler: what it is made of does not change any more.
    """
    known = vars(sampler)
    if "_kind" not in known:  # the same in all steps of a decoding
        values = [_plain(getattr(sampler, each.name)) for each in fields(sampler)]
        known["_kind"] = None if None in values else tuple(values)
    return known["_kind"]


def _plain(value: Any) -> Any:
    """Return a value in brackets, so that equal ones are found equal; None where nobody knows."""
    if isinstance(value, Tensor):
        return tuple(value.tolist())
    if not isinstance(value, LogitsProcessorList):
        return (value,)
    if any(type(one).__module__ != logits_process.__name__ for one in value):
        return None
    own = tuple((type(one), tuple(sorted(vars(one).items()))) for one in value)
    simple = (bool, int, float, type(None))
    return own if all(isinstance(v, simple) for _, items in own for _, v in items) else None


# Rows (R,), their text (R, L) and positions (R, L) bool, see `LogitsFn`.
Arguments = tuple[Tensor, Tensor, Tensor]


class Wanted(NamedTuple):
    """What a step asks of one job's network.

    Attributes:
        network: "logits" or "scores".
        arguments: its rows, their text, and where.
    """

    network: str
    arguments: Arguments

    @property
    def asks(self) -> bool:
        """Whether there is any position."""
        return bool(self.arguments[2].any())


class Found(NamedTuple):
    """What the network said: the logits (N, V), or the scores (N,)."""

    value: Tensor | LateLogits


@dataclass
class Networks:
    """The networks of one step's rows, which remember what they said in it.

    Where a step that was begun together is made alone in the end, they are not asked again: some
    have a memory of the pass before, and all are counted.

    Attributes:
        step: whose rows.
        said: in their order, the answers of this step that are to be given again.
    """

    step: Step
    said: list[Found] = field(default_factory=list)
    _again: int = 0

    def ask(self, wanted: Wanted) -> Found:
        """Ask one of them anew."""
        network = self.step.logits_fn if wanted.network == "logits" else self.step.critic_fn
        assert network is not None  # or nobody could have wanted its scores
        found = Found(network(*wanted.arguments))
        if wanted.asks:
            self.said.append(found)
        return found

    def logits(self, *arguments: Tensor) -> Tensor | LateLogits:
        """Return the denoiser's logits, see `LogitsFn`."""
        return self._once(Wanted("logits", cast(Arguments, arguments)))

    def scores(self, *arguments: Tensor) -> Any:
        """Return the critic's scores, see `CriticFn`."""
        return self._once(Wanted("scores", cast(Arguments, arguments)))

    def _once(self, wanted: Wanted) -> Tensor | LateLogits:
        if self._again == len(self.said) or not wanted.asks:
            found = self.ask(wanted)
            self._again = len(self.said)
            return found.value
        self._again += 1
        return self.said[self._again - 1].value


class JoinedStep:
    """One step of several jobs' rows.

    Args:
        steps: of one kind, two or more.
        pad_token_id: the encoder's padding.
        ask: given for some of the steps, by number, what is wanted of their networks; returns what
            these have said.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        pad_token_id: int,
        ask: Callable[[Mapping[int, Wanted]], Mapping[int, Found]],
    ) -> None:
        self._steps, self._padding, self._ask = steps, pad_token_id, ask
        self._sizes = [step.shape[0] for step in steps]
        self._own = torch.cat([step.rows for step in steps])  # (R,) as each job counts them
        self._owner = [i for i, size in enumerate(self._sizes) for _ in range(size)]

    def __call__(self) -> list[DecodingState]:
        """Make it, and return for each step its rows after it."""
        first, width = self._steps[0], max(step.shape[1] for step in self._steps)
        state, everyone = self._state(width), torch.arange(len(self._own), device=self._own.device)
        asked = Pass(
            *(
                _passes(values, width)
                for values in zip(*(s.asked for s in self._steps), strict=True)
            )
        )
        uniforms = torch.cat([_widened(step.uniforms, width, 0.0) for step in self._steps])
        # Whether masks can be left out is best known of those that have just begun.
        youngest = self._steps[self._owner[int(state.masked.sum(1).argmax())]]
        after = reveal_step(
            lambda *what: self._told("logits", what),
            everyone,
            state,
            asked,
            uniforms,
            first.sampler,
            lambda *what: self._told("scores", what),
            youngest.contenders,
        )
        changed = ["text", "masked", "log_probabilities"]
        changed += ["alternatives"] * (after.alternatives is not None)
        return [
            replace(
                step.state,
                **{name: getattr(after, name)[rows, : step.shape[1]] for name in changed},
            )
            for step, rows in zip(self._steps, self._spans(), strict=True)
        ]

    def _state(self, width: int) -> DecodingState:
        def field_of(name: str, filler: Any) -> Tensor:
            return torch.cat(
                [_widened(getattr(step.state, name), width, filler) for step in self._steps]
            )

        return DecodingState(
            text=field_of("text", self._padding),
            masked=field_of("masked", False),
            can_end=field_of("can_end", False),
            block=field_of("block", -1),
            log_probabilities=field_of("log_probabilities", 0.0),
            alternatives=(
                None
                if self._steps[0].state.alternatives is None
                else field_of("alternatives", -torch.inf)
            ),
        )

    def _spans(self) -> Iterator[slice]:
        """Yield which of all rows are each step's."""
        start = 0
        for size in self._sizes:
            yield slice(start, start + size)
            start += size

    def _told(self, network: str, what: Any) -> Any:
        """Ask each job's network of its own rows, and put the answers together."""
        rows, text, positions = what
        owner = torch.tensor([self._owner[row] for row in rows.tolist()], device=rows.device)
        of_position = owner[positions.nonzero()[:, 0]]  # (N,)
        wanted, here = {}, {}
        for i in sorted(set(of_position.tolist())) or [0]:
            mine, length = owner == i, self._steps[i].shape[1]
            own = self._own[rows[mine]], text[mine, :length], positions[mine, :length]
            wanted[i], here[i] = Wanted(network, own), of_position == i
        found = self._ask(wanted)
        if len(found) == 1:
            return next(iter(found.values())).value
        return joined([(here[i], found[i].value) for i in wanted])


def _widened(value: Tensor, width: int, filler: Any) -> Tensor:
    """Pad (R, L, ..) to (R, `width`, ..)."""
    missing = width - value.shape[1]
    if not missing:  # padding by nothing would copy
        return value
    return F.pad(value, (0, 0) * (value.ndim - 2) + (0, missing), value=filler)


def _passes(values: Sequence[Tensor], width: int) -> Tensor:
    """Join what is asked of rows: (R,), (R, 1), or (R, L) where each place has its own."""
    if values[0].ndim == 1 or all(value.shape[1] == 1 for value in values):
        return torch.cat(list(values))
    return torch.cat(
        [v.expand(-1, width) if v.shape[1] == 1 else _widened(v, width, 0.0) for v in values]
    )
