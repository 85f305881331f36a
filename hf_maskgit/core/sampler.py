"""Every sampler is three choices: `order`, `pace`, `remask`. Which go together stands here.

- `order`: which masked positions go first;
- `pace`: how many per pass;
- `remask`: which revealed tokens are masked again.

The functions behind the names are in `sampling`, `pacing` and `remasking`; `decoding` puts them
together.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor
from transformers import LogitsProcessorList

from .sampler_paces import annealing
from .sampler_scores import POSITION_SCORES
from .schedules import Schedule

SCORED_ORDERS = (*POSITION_SCORES, "confidence")  # by the denoiser's law
BLIND_ORDERS = ("random", "left_to_right")  # known without a look at the logits
ORDERS = (*SCORED_ORDERS, "critic", *BLIND_ORDERS)
PACES = ("schedule", "ancestral", "first_hitting", "threshold", "entropy_bound")
REMDM = ("remdm_cap", "remdm_rescale", "remdm_conf", "remdm_loop")
COMPETING = ("confidence", "critic", "p2")  # revealed tokens compete with masks for their place
REMASKS = ("never", *COMPETING, *REMDM)
P2_PLANNERS = ("self", "critic")

# What goes with what; the first entry is what an unset choice becomes. An order of tokens that
# cannot be compared with the score of a token that stands there, a pace that brings its own rule,
# or remasking that is defined for independent coin flips leaves nothing else that makes sense.
ORDERS_OF_PACE = {
    "schedule": ORDERS,
    "ancestral": ("random",),
    "first_hitting": ("random",),
    "threshold": ("top_probability", "confidence"),
    "entropy_bound": ("entropy", "margin", "top_probability"),
}
PACES_OF_REMASK = {
    "never": PACES,
    **dict.fromkeys(COMPETING, ("schedule",)),
    **dict.fromkeys(REMDM, ("ancestral",)),
}
ORDERS_OF_REMASK = {
    "never": ORDERS,
    "confidence": ("top_probability", "confidence"),
    "critic": ("critic",),
    "p2": ("top_probability", "confidence", "critic"),
    **dict.fromkeys(REMDM, ("random",)),
}


class Choices(NamedTuple):
    """A legal combination."""

    order: str
    pace: str
    remask: str


def resolve_choices(
    order: str | None, pace: str | None, remask: str | None, p2_planner: str = "self"
) -> Choices:
    """Complete the three choices, where unset from those that are set, and check the combination.

    Raises:
        ValueError: for a combination that makes no sense, naming what goes together.
    """
    remask = remask or "never"
    paces = PACES_OF_REMASK[remask]
    pace = pace or paces[0]
    if pace not in paces:
        raise ValueError(
            f"remask={remask!r} goes with pace {_listed(paces)}, got pace={pace!r}; leave `pace` "
            "unset or choose another remasking."
        )
    orders = [name for name in ORDERS_OF_PACE[pace] if name in ORDERS_OF_REMASK[remask]]
    if remask == "p2":
        orders = [name for name in orders if (name == "critic") == (p2_planner == "critic")]
    order = order or orders[0]
    if order not in orders:
        planner = f" and p2_planner={p2_planner!r}" if remask == "p2" else ""
        raise ValueError(
            f"pace={pace!r} with remask={remask!r}{planner} goes with order {_listed(orders)}, got "
            f"order={order!r}; leave `order` unset or choose another pace or remasking."
        )
    return Choices(order, pace, remask)


@dataclass(frozen=True)
class Sampler:
    """The choices of one decoding, every field resolved.

    Ranges are those of `MaskGitGenerationConfig`, which has checked them.

    Attributes:
        steps: S, passes at most (where the pace goes by steps).
        schedule: how much is left masked after each of them.
        mask_token_id: what stands at a masked position.
        suppressed: (K,) long, ids that are never emitted.
        end_ids: (E,) long, ids that end a text; emitted only where nothing known stands behind.
        order, pace, remask: a legal combination, see `resolve_choices`.
        block_length: masks per block, decoded from left to right; None is one block of all.
        do_sample: draw tokens; False takes the likeliest.
        temperature: divides the logits before a token is drawn.
        anneal_temperature: scale it down to 0 towards the end.
        choice_temperature: scale of the Gumbel noise on the order, annealed likewise.
        noise_level_scale: the same for an order by critic.
        confidence_threshold, threshold_factor, entropy_budget: of the paces of these names.
        remdm_eta, remdm_t_on, remdm_t_off, remdm_alpha_on: of ReMDM.
        p2_eta: scales the scores of revealed tokens in P2.
        processors: change the scores (N, V) of the positions about to be drawn, given their rows'
            text (N, L); applied before the temperature.
        warpers: the same, applied after it.
        records_probabilities: keep each token's log-probability at its reveal.
    """

    steps: int
    schedule: Schedule
    mask_token_id: int
    suppressed: Tensor
    end_ids: Tensor
    order: str = "top_probability"
    pace: str = "schedule"
    remask: str = "never"
    block_length: int | None = None
    do_sample: bool = True
    temperature: float = 1.0
    anneal_temperature: bool = True
    choice_temperature: float = 0.0
    noise_level_scale: float = 1.0
    confidence_threshold: float = 0.9
    threshold_factor: float | None = None
    entropy_budget: float = 0.1
    remdm_eta: float = 0.02
    remdm_t_on: float = 0.55
    remdm_t_off: float = 0.05
    remdm_alpha_on: float = 0.9
    p2_eta: float = 1.0
    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    warpers: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    records_probabilities: bool = False

    @property
    def goes_by_steps(self) -> bool:
        """Whether `steps` limits the passes; the other paces need as many as they need."""
        return self.pace in ("schedule", "ancestral")

    @property
    def changes_scores(self) -> bool:
        """Whether processors or warpers look at the scores before a token is drawn."""
        return bool(self.processors or self.warpers)

    @property
    def needs_probabilities(self) -> bool:
        """Whether a token's log-probability at its reveal is looked at later."""
        return self.records_probabilities or self.remask == "remdm_conf"

    def heat(self, step: int, progress: Tensor) -> Tensor:
        """Return each row's temperature scale for this pass, (R,) float64, falling to 0.

        Args:
            step: passes done before this one.
            progress: (R,) float64, what this pass leaves masked at most, as a share of the masks at
                the start; used where the number of passes is not known beforehand.
        """
        if self.goes_by_steps:
            return progress.new_full(progress.shape, max(annealing(step, self.steps), 0.0))
        return progress


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))
