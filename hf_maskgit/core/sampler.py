"""Every option of a sampler, declared once: default, range, and what it means."""

from dataclasses import dataclass, field

from torch import Tensor
from transformers import LogitsProcessorList

from .options import option
from .schedules import Schedule

_MOST_STEPS = 100_000  # more takes hours, and memory for each of them before the first


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How one batch is decoded, every option resolved.

    A sampler is three choices, `order`, `pace` and `remask`, whose rows stand in the tables of
    `sampler_rules`, and the numbers that these rows read. `MaskGitGenerationConfig` takes its
    options, their defaults and their ranges from here, and has checked them.

    Args:
        schedule: how much is left masked after each pass.
        mask_token_id: what stands at a masked position.
        suppressed: (K,) long, ids that are never emitted.
        end_ids: (E,) long, ids that end a text; emitted only where nothing known stands behind.
        processors: change the scores (N, V) of the positions about to be drawn, given their rows'
            text (N, L); applied before the temperature.
        warpers: the same, applied after it.
        records_probabilities: keep each token's log-probability at its reveal.
        steps, order, ...: the options of `generate` of that name; each says below what it is.
    """

    schedule: Schedule
    mask_token_id: int
    suppressed: Tensor
    end_ids: Tensor
    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    warpers: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    records_probabilities: bool = False

    steps: int = option(
        18,
        "Passes of the denoiser at most; all blocks together share them. A pace that does not go "
        "by them takes the passes it needs.",
        int,
        low=1,
        high=_MOST_STEPS,
    )
    # What the values of these three are stands in the rows of `sampler_rules`.
    order: str = option("top_probability", "Which masked positions go first: those")
    pace: str = option("schedule", "Which of them a pass reveals:")
    remask: str = option("never", "Which revealed tokens are masked again:")
    block_length: int | None = option(
        None,
        "Decode blocks of that many masks, from left to right; None decodes all at once.",
        int,
        low=1,
    )
    do_sample: bool = option(True, "Draw tokens; False takes the likeliest.", bool)
    temperature: float = option(
        1.0,
        "Divides the logits before a token is drawn; below 1 sharpens.",
        int,
        float,
        low=0,
        open_low=True,
        hint="; for the likeliest token set do_sample=False",
    )
    anneal_temperature: bool = option(
        True,
        "Scale the temperature down to 0 over the steps. This sharpens: the last pass is greedy. "
        "For samples from the model's own distribution set it to False.",
        bool,
    )
    choice_temperature: float | None = option(
        None,
        "Scale of the Gumbel noise on the order, annealed to 0 over the steps. Left out, it is "
        "that of the order's row, and 0 where nothing is drawn or the pace takes no noise.",
        int,
        float,
        low=0,
    )
    noise_level_scale: float = option(
        1.0,
        "Scale of the Gumbel noise on the critic's scores, annealed to 0 over the steps.",
        int,
        float,
        low=0,
    )
    confidence_threshold: float = option(
        0.9, 'Probability from which pace "threshold" reveals.', int, float, low=0, high=1
    )
    threshold_factor: float | None = option(
        None,
        "Instead of the threshold, f of Fast-dLLM's rule (n + 1)(1 - p_n) < f.",
        int,
        float,
        low=0,
        open_low=True,
    )
    entropy_budget: float = option(
        0.1,
        'Nats of mutual information that pace "entropy_bound" may lose in a pass.',
        int,
        float,
        low=0,
    )
    draft_length: int = option(
        16, 'Tokens that pace "speculative" drafts in a round at most.', int, low=1
    )
    remdm_eta: float = option(0.02, "Remask rate of ReMDM.", int, float, low=0, high=1)
    remdm_t_on: float = option(
        0.55,
        "Time from which ReMDM-loop remasks; time runs from 1 down to 0.",
        int,
        float,
        low=0,
        high=1,
        open_low=True,
    )
    remdm_t_off: float = option(
        0.05,
        "Time until which ReMDM-loop remasks, less than `remdm_t_on`.",
        int,
        float,
        low=0,
        high=1,
        open_high=True,
    )
    remdm_alpha_on: float = option(
        0.9,
        "Share of tokens that are revealed while ReMDM-loop remasks.",
        int,
        float,
        low=0,
        high=1,
        open_low=True,
        open_high=True,
    )
    p2_eta: float = option(
        1.0,
        "Scales the log-probability of revealed tokens in P2; above 1 remasks more.",
        int,
        float,
        low=0,
        open_low=True,
    )

    @property
    def changes_scores(self) -> bool:
        """Whether processors or warpers look at the scores before a token is drawn."""
        return bool(self.processors or self.warpers)
