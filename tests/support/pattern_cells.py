"""Small cells of patterns, with their laws by enumeration of every text."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from hf_maskgit.core.decoding import Filled, fill_masks
from hf_maskgit.core.decoding_layout import pack_rows
from hf_maskgit.core.decoding_patterns import with_patterns
from hf_maskgit.core.decoding_state import DecodingState
from hf_maskgit.core.pattern_automaton import Automaton, smallest
from hf_maskgit.core.sampler import Sampler
from hf_maskgit.core.sampler_choices import resolve_choices
from hf_maskgit.core.schedules import get_schedule
from hf_maskgit.core.token_pattern import TokenPattern
from tests.support.oracles_sampling import all_rows


@dataclass(frozen=True)
class Cell:
    """A denoiser that says the same of every text, and a language.

    Attributes:
        logits: (L, V) float64, of the V symbols; the mask is V and the end of a text V + 1.
        step: (Q, V) long, the state after a symbol, Q for nowhere.
        final: (Q,) bool.
        known: symbols by place that are given; the first and the last place are none.
    """

    logits: Tensor
    step: Tensor
    final: Tensor
    known: dict[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """L and V."""
        return tuple(self.logits.shape)

    @property
    def pattern(self) -> TokenPattern:
        """The language, as the library holds it."""
        states, symbols = self.step.shape
        never = torch.full((states, 1), states)  # mask and end are of the class that never comes
        class_of = torch.cat([torch.arange(symbols) + 1, torch.zeros(2).long()])
        step = torch.cat([never, self.step], 1)
        return TokenPattern(smallest(Automaton(step, self.final, class_of, 0)))

    def accepts(self, text) -> bool:
        state = 0
        for symbol in text:
            if state < len(self.final):
                state = int(self.step[state, symbol])
        return state < len(self.final) and bool(self.final[state])

    @cached_property
    def texts(self) -> Tensor:
        """Every text of the language with its known symbols, (K, L) long."""
        length, symbols = self.shape
        texts = all_rows(symbols, length)
        for place, symbol in self.known.items():
            texts = texts[texts[:, place] == symbol]
        state = torch.zeros(len(texts), dtype=torch.long)
        step = torch.cat([self.step, torch.full((1, symbols), len(self.final))])
        for place in range(length):
            state = step[state, texts[:, place]]
        return texts[torch.cat([self.final, torch.zeros(1).bool()])[state]]

    def law(self, temperature: float = 1.0) -> Tensor:
        """Probability of each of `texts` given that it is one of them."""
        scores = (self.logits / temperature).log_softmax(-1)
        free = [place for place in range(self.shape[0]) if place not in self.known]
        texts = self.texts
        return scores[free, texts[:, free]].sum(1).softmax(0)

    def log_mass(self) -> float:
        """Log-probability of the language."""
        free = [place for place in range(self.shape[0]) if place not in self.known]
        scores = self.logits.log_softmax(-1)
        return float(scores[free, self.texts[:, free]].sum(1).logsumexp(0))

    def marginals(self) -> Tensor:
        """Probability of each symbol at each place, (L, V)."""
        one_hot = torch.nn.functional.one_hot(self.texts, self.shape[1]).double()
        return (one_hot * self.law()[:, None, None]).sum(0)

    def counts(self, drawn: Tensor) -> np.ndarray:
        """How often each of `texts` was drawn.

        Raises:
            KeyError: for one that is none of them.
        """
        number = {tuple(text): place for place, text in enumerate(self.texts.tolist())}
        counts = np.zeros(len(number))
        for text in drawn.tolist():
            counts[number[tuple(text)]] += 1
        return counts

    def fill(self, samples: int, seed: int = 0, **options) -> Filled:
        """Fill many rows, with the options of `generate`; temperature 1 and no annealing.

        `logits_fn` stands in for the cell's own denoiser, over its symbols, the mask and the end.
        """
        length, symbols = self.shape
        choices, can_end = options.pop("p2_planner", "self"), options.pop("can_end", False)
        own = options.pop("logits_fn", None)
        asked = [options.pop(name, None) for name in ("order", "pace", "remask")]
        settings = {"steps": length, "anneal_temperature": False, **options}
        sampler = Sampler(
            schedule=get_schedule("linear"),
            mask_token_id=symbols,
            suppressed=torch.tensor([symbols]),
            end_ids=torch.tensor([symbols + 1]),
            **resolve_choices(*asked, choices)._asdict(),
            **settings,
        )
        text = torch.full((samples, length), symbols)
        for place, symbol in self.known.items():
            text[:, place] = symbol
        rows = pack_rows(
            text,
            torch.ones_like(text),
            num_new=0,
            mask_token_id=symbols,
            pad_token_id=symbols + 1,
            suffix_ids=[],
            from_nothing=False,
        )
        end = rows.can_end if can_end else torch.zeros_like(rows.can_end)
        state = DecodingState.start(text, rows.masked, end, sampler.block_length)
        state = with_patterns(state, rows, sampler, self.pattern, symbols + 2)
        logits = torch.nn.functional.pad(self.logits, (0, 2))

        def critic_fn(rows: Tensor, text: Tensor, positions: Tensor) -> Tensor:
            return text[positions].double() / symbols - positions.nonzero()[:, 1] / length

        return fill_masks(
            own or (lambda rows, text, positions: logits[positions.nonzero()[:, 1]]),
            state,
            torch.full((samples,), length),
            sampler,
            range(seed, seed + samples),
            critic_fn=critic_fn,
        )


@cache
def cell(seed: int, known: bool = True) -> Cell:
    """Draw a cell of 3 to 5 symbols, 4 to 6 places and 2 to 4 states."""
    generator = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    while True:
        symbols, length, states = whole(3, 5), whole(4, 6), whole(2, 4)
        drawn = Cell(
            1.5 * torch.randn(length, symbols, generator=generator, dtype=torch.float64),
            torch.randint(0, states + 1, (states, symbols), generator=generator),
            torch.rand(states, generator=generator) < 0.5,
            {whole(1, length - 2): whole(0, symbols - 1)} if known else {},
        )
        if 4 <= len(drawn.texts) <= symbols ** (length - len(drawn.known)) - 4:
            return drawn
