"""What `generate` returns beside the texts.

Letters: B rows, P prompt columns, n new ones, L length, K alternatives.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from .decoding import Filled
from .decoding_layout import PackedRows

# Options that ask for parts of an output, which `return_dict_in_generate` returns.
PARTS_OF_OUTPUT = ("output_history", "output_alternatives")
# Options that say what a call returns, and nothing of how a text comes about.
OF_A_CALL = ("num_return_sequences", "return_dict_in_generate", *PARTS_OF_OUTPUT)


@dataclass
class MaskGitGenerationOutput(ModelOutput):
    """What `generate` returns with `return_dict_in_generate=True`.

    Args:
        sequences: (B, P + n) long, n the most new tokens of a row.
        num_new_tokens: (B,) long, masks that were appended to each row; behind an end of text in
            them stands padding.
        denoiser_passes: (B,) long, passes of the denoiser in which each row took part. With
            guidance each of them asks the denoiser twice.
        denoiser_rows: (B,) long, rows of these passes that were texts of each row: as many as
            passes, but with a pace that asks for several texts of a row in one pass.
        critic_passes: (B,) long, passes of the token critic likewise.
        reveal_steps: (B, P + n) long, the step that revealed each token, from 0; -1 for known ones
            and padding. A step is a pass, and with pace="speculative" a round of two.
        reveal_log_probabilities: (B, P + n) float32, log-probability of each token when it was
            revealed, by the denoiser's distribution without temperature and filters; 0 where
            `reveal_steps` is -1.
        alternatives: (B, P + n, K) long with `output_alternatives` K, the likeliest tokens of each
            place when it was revealed, by the same distribution; -1 behind the last.
        alternative_log_probabilities: (B, P + n, K) float32, theirs; -inf behind the last.
        log_weights: (B,) float64 with `pattern`: log of the denoiser's probability of all that was
            drawn, over that with which it was drawn. Their exponentials average to the probability
            of the pattern under the sampler without it, and weigh the texts as that sampler's that
            match. nan where that probability is not known: with a temperature or filters, greedily,
            with remasking, or an order that looks at what was drawn.
        history: (passes, B, P + n) long with `output_history`, the rows after every pass, masks and
            all.
    """

    sequences: Tensor | None = None
    num_new_tokens: Tensor | None = None
    denoiser_passes: Tensor | None = None
    denoiser_rows: Tensor | None = None
    critic_passes: Tensor | None = None
    reveal_steps: Tensor | None = None
    reveal_log_probabilities: Tensor | None = None
    alternatives: Tensor | None = None
    alternative_log_probabilities: Tensor | None = None
    log_weights: Tensor | None = None
    history: Tensor | None = None


def output_of(
    filled: Filled, rows: PackedRows, sequences: Tensor, cut_off: Tensor, history: Tensor | None
) -> MaskGitGenerationOutput:
    """Put what was filled back in the columns of the caller.

    Args:
        filled: the batch.
        rows: the same as it was packed.
        sequences: (B, P + n) long, the finished texts.
        cut_off: (B, L) bool, what became padding behind an end of text.
        history: (passes, B, P + n) long, or None.
    """
    # What an end of text cut off was not revealed, as far as the caller can see.
    reveal_steps = filled.reveal_steps.masked_fill(cut_off, -1)
    unseen = reveal_steps < 0
    output = MaskGitGenerationOutput(
        sequences=sequences,
        num_new_tokens=rows.num_new,
        denoiser_passes=filled.passes,
        denoiser_rows=filled.pass_rows,
        critic_passes=filled.critic_passes,
        reveal_steps=rows.restore(reveal_steps, -1),
        reveal_log_probabilities=rows.restore(filled.log_probabilities.masked_fill(unseen, 0), 0),
        log_weights=filled.log_weights,
        history=history,
    )
    if filled.alternatives is not None:
        ids, logs = filled.alternatives.unbind(-1)  # (B, L, K)
        output.alternatives = _restored(rows, ids.long(), unseen, -1)
        output.alternative_log_probabilities = _restored(rows, logs.float(), unseen, -torch.inf)
    return output


def _restored(rows: PackedRows, values: Tensor, unseen: Tensor, nothing: float) -> Tensor:
    """Do so for (B, L, K), with nothing where nothing was revealed."""
    return torch.stack(
        [rows.restore(one.masked_fill(unseen, nothing), nothing) for one in values.unbind(-1)], -1
    )
