"""The forward process: which positions are hidden, how, and with what weight.

`Masking` declares the options and does it; the functions below are its parts. A chosen position is
one the loss covers. With pure masking it shows the mask; with BERT-style corruption it may also
keep its token or show a random one. Both ways of choosing have the same expected weighted loss, the
bound on the negative log-likelihood (MDLM, arXiv 2406.07524, eq. 10).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .options import check, option, options_of
from .sampler_scores import highest
from .schedules import SCHEDULES, Schedule, get_schedule

_EARLIEST = 2.0**-53  # time 0 would weigh infinitely; this is the spacing of float64 below 1


def _probability(default: float, help: str) -> Any:
    return option(default, help, low=0, high=1, noun="probability")


@dataclass(frozen=True, kw_only=True)
class Masking:
    """How training hides tokens. Each field says in its declaration what it is.

    `MaskGitConfig`, the collator and the training script take defaults, help and range from here.

    Raises:
        ValueError: for an option out of its range, or probabilities that leave the mask less than
            nothing.
    """

    schedule: str | Callable[[Tensor], Tensor] | Schedule = option(
        "linear",
        "How much of a text is masked at each time. In Python also a function from times in [0, 1] "
        "to fractions masked.",
        choices=tuple(SCHEDULES),
    )
    no_replace_prob: float = _probability(
        0.15, "Probability that a chosen position keeps its token."
    )
    random_token_prob: float = _probability(
        0.1, "Probability that a chosen position gets a random ordinary token."
    )
    corruption_prob: float = _probability(
        0.5,
        "Probability, per example, that each of `no_replace_prob` and `random_token_prob` is "
        "switched on. Below 1 some examples are purely masked; the fully masked state, where "
        "generation starts, would otherwise never be seen. 0 always masks purely: only then is the "
        "weighted loss a likelihood bound.",
    )
    use_simple_mdlm_loss_weight: bool = option(
        True,
        "Weight the cross-entropy as in MDLM (arXiv 2406.07524), a likelihood bound under pure "
        "masking; false gives weight 1, MaskGIT's plain masked cross-entropy.",
        bool,
    )
    choice: str = option(
        "exact_count",
        "How masked positions are chosen: 'exact_count', a drawn number of them (finite variance), "
        "or 'bernoulli', each on its own.",
        choices=("exact_count", "bernoulli"),
    )

    def __post_init__(self) -> None:
        """Check every option, and what the probabilities leave for the mask."""
        for name, declared in options_of(Masking).items():
            if name != "schedule":  # which may be a function, so it is checked where it is made
                check(name, getattr(self, name), declared)
        if self.no_replace_prob + self.random_token_prob > 1:
            raise ValueError(
                "`no_replace_prob` + `random_token_prob` must not exceed 1 (the rest is masked), "
                f"got {self.no_replace_prob} + {self.random_token_prob}."
            )
        get_schedule(self.schedule)

    @cached_property
    def curve(self) -> Schedule:
        """The schedule itself, whether it was given by name, as a function or as such."""
        return get_schedule(self.schedule)

    def choose(self, times: Tensor, maskable: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the positions that the loss covers.

        Args:
            times: (B,) float64 in (0, 1].
            maskable: (B, L) bool, at least one in each row.
            uniforms: (B, L) float64 in [0, 1), one draw per position.

        Returns:
            (B, L) bool, the chosen positions, all of them maskable; and (B,) float64, what the loss
            at each of a row's chosen positions weighs (MDLM, arXiv 2406.07524, eq. 10).
        """
        if self.choice == "exact_count":
            num_maskable = maskable.sum(1)
            counts = exact_counts(times, num_maskable, self.curve)
            # The k positions with the highest draws are a uniform choice among all sets of k.
            chosen = highest(uniforms, maskable, counts)
            weights = exact_count_weights(counts, num_maskable, self.curve)
        else:
            chosen = maskable & (uniforms < self.curve.mask_rate(times)[:, None])
            weights = self.curve.loss_weight(times)
        if not self.use_simple_mdlm_loss_weight:
            weights = torch.ones_like(weights)
        return chosen, weights

    def corrupt(
        self,
        input_ids: Tensor,
        chosen: Tensor,
        coins: Tensor,
        uniforms: Tensor,
        mask_token_id: int,
        ordinary_ids: Tensor,
    ) -> Tensor:
        """Show the mask, the true token or a random one at the chosen positions.

        Args:
            input_ids: (B, L) long, the true tokens.
            chosen: (B, L) bool.
            coins: (B, L, 2) float64 in [0, 1), one draw for kept and one for random tokens, each
                the same at all tokens of a text.
            uniforms: (B, L, 2) float64 in [0, 1): what a position shows, and which random token.
            mask_token_id: the id of the mask.
            ordinary_ids: (V,) long, the ids a random token is drawn from.

        Returns:
            (B, L) long; a position that was not chosen shows its token.
        """
        # One draw decides between three, so that they exclude each other. With both coins below
        # `corruption_prob` and the defaults 0.15 and 0.1, a draw of
        #     0 ... 0.15 keeps the token, 0.15 ... 0.25 shows a random one, 0.25 ... 1 the mask;
        # a coin that fell the other way leaves its stretch empty and moves the others down.
        switched_on = (coins < self.corruption_prob).double()
        keep_below = switched_on[..., 0] * self.no_replace_prob
        random_below = keep_below + switched_on[..., 1] * self.random_token_prob
        kind, place = uniforms.unbind(-1)
        random_ids = ordinary_ids[(place * len(ordinary_ids)).long()]
        shown = torch.full_like(input_ids, mask_token_id)
        shown = torch.where(kind < random_below, random_ids, shown)
        shown = torch.where(kind < keep_below, input_ids, shown)
        return torch.where(chosen, shown, input_ids)


def maskable_positions(
    input_ids: Tensor,
    attention_mask: Tensor,
    prefix_ids: Sequence[int],
    suffix_ids: Sequence[int],
    forbidden_token_ids: Sequence[int],
) -> Tensor:
    """Mark the positions that may be masked: real tokens that do not frame the text.

    Framing goes by the tokenizer's template, not by id: a separator inside a packed block is a
    maskable end of text. Ids that can never be emitted (markers of a chat template, say) stay
    visible.

    Args:
        input_ids: (B, L) long.
        attention_mask: (B, L), 1 at real tokens, which are contiguous in each row.
        prefix_ids: the ids before one text; a text that lacks them has no framing there.
        suffix_ids: the ids behind it, likewise.
        forbidden_token_ids: ids without probability.

    Returns:
        (B, L) bool.
    """
    real = attention_mask.bool()
    maskable = real & ~torch.isin(
        input_ids, torch.as_tensor(list(forbidden_token_ids)).to(input_ids)
    )
    # Padding stands on either side, so each row's ends are looked for among its real tokens:
    #     . . [CLS] a [SEP] b [SEP]   [CLS] and the last [SEP] frame the row; the [SEP] between
    #     0 0   0   1   1   1   0     two packed texts ends one of them and may be masked.
    before = real.cumsum(1) - real.long()  # real tokens on the left of each
    behind = real.sum(1, keepdim=True) - 1 - before
    inwards = list(prefix_ids or ()), list(suffix_ids or ())[::-1]
    for framing, place in zip(inwards, (before, behind), strict=True):
        maskable &= ~_framing_positions(input_ids, real, framing, place)
    return maskable


def _framing_positions(
    input_ids: Tensor, real: Tensor, framing: Sequence[int], place: Tensor
) -> Tensor:
    """Mark the tokens that frame an end of a text, (B, L) bool, in the rows that have all of them.

    Args:
        input_ids: (B, L) long.
        real: (B, L) bool.
        framing: the ids from that end inwards.
        place: (B, L) long, real tokens between each and that end.
    """
    marked = torch.zeros_like(real)
    has_all = real.new_ones(len(real), 1)
    for number, token in enumerate(framing):
        here = real & (place == number)
        has_all = has_all & (here & (input_ids == token)).any(1, keepdim=True)
        marked |= here
    return marked & has_all


def exact_counts(times: Tensor, num_maskable: Tensor, schedule: Schedule) -> Tensor:
    """Turn times into numbers of positions to choose.

    Args:
        times: (B,) float64 in (0, 1].
        num_maskable: (B,) long, n >= 1.
        schedule: how much is masked at each time.

    Returns:
        (B,) long, k in 1..n with P(k) = inverse(k/n) - inverse((k-1)/n) when the time is uniform.
    """
    # Rounded up, because no position means no loss: with n = 4 and the linear schedule, times in
    # (0, 1/4] give k = 1, (1/4, 1/2] give 2, and so on, so each k has the share 1/4.
    counts = (schedule.mask_rate(times) * num_maskable).ceil().long()
    return torch.minimum(counts.clamp_min(1), num_maskable)


def exact_count_weights(counts: Tensor, num_maskable: Tensor, schedule: Schedule) -> Tensor:
    """Return 1 / (k P(k)), the weight that makes exact counts unbiased; n/k for linear.

    The bound is the mean over k of (n/k) times the summed loss (any-order form of MDLM's eq. 10,
    substitution u = mask_rate(t)); dividing by P(k) corrects for any other distribution of k.

    Args:
        counts: (B,) long, k in 1..n.
        num_maskable: (B,) long, n.
        schedule: the schedule the counts were drawn with.

    Returns:
        (B,) float64.
    """
    k, n = counts.double(), num_maskable.double()
    probability = schedule.inverse(k / n) - schedule.inverse((k - 1) / n)
    return 1 / (k * probability)


def stratified_times(strata: Tensor, offsets: Tensor, num_strata: int | Tensor) -> Tensor:
    """Spread one time per example evenly over (0, 1], one in each stratum of the whole update.

    Args:
        strata: (B,) long, all different, in 0..num_strata-1: the stratum of each example.
        offsets: (B,) float64 in [0, 1), place within the stratum.
        num_strata: how many examples the whole update has, of which these may be a part; (B,) long
            where they are of different wholes.

    Returns:
        (B,) float64 in (0, 1].
    """
    # Counted down from 1, so that time 1, all masked, is reached and 0 is not.
    return (1 - (strata + offsets) / num_strata).clamp_min(_EARLIEST)
