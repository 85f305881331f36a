"""Returned texts of one prompt that are all equal although they were drawn: a warning."""

from torch import Tensor
from transformers.utils import logging

from .decoding_prompts import Prompts

logger = logging.get_logger(__name__)


def warn_of_equal_texts(sequences: Tensor, prompts: Prompts) -> None:
    """Warn once where several texts were asked for and all came out the same.

    Args:
        sequences: (B * num_return_sequences, P + n) long, what `generate` returns.
        prompts: the rows that were decoded, in the same order.
    """
    repeats = prompts.repeats
    if repeats == 1:
        return
    texts = sequences.unflatten(0, (-1, repeats))  # (B, num_return_sequences, P + n)
    equal = (texts == texts[:, :1]).all(2).all(1)
    # Nothing was drawn in a row without masks, and the same seed asks for the same text.
    equal &= prompts.rows.masked.any(1).unflatten(0, (-1, repeats)).any(1)
    alike = [i for i in equal.nonzero()[:, 0].tolist() if _seeds_differ(prompts, i)]
    if alike:
        warn_of_equal(repeats)


def warn_of_equal(repeats: int) -> None:
    """Warn once that all texts of a prompt came out the same.

    Args:
        repeats: how many there are.
    """
    logger.warning_once(
        f"All {repeats} texts returned for one prompt are equal, although they were drawn: at "
        "this temperature the model sees one way to write them. For different ones raise "
        "`choice_temperature`, which lets the masks be filled in another order every time, or "
        "`temperature`, or set anneal_temperature=False, which draws the last tokens as freely "
        "as the first."
    )


def _seeds_differ(prompts: Prompts, row: int) -> bool:
    start = row * prompts.repeats
    return len(set(prompts.seeds[start : start + prompts.repeats])) > 1
