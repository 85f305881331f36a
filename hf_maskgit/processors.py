"""Processors of scores: which of transformers' mean something in parallel decoding."""

from collections.abc import Sequence

from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation import logits_process

# Processors of transformers that look at one position's scores alone (or, the penalty, at which
# tokens a row holds): they mean the same in parallel decoding. The others count on tokens arriving
# one by one.
_PARALLEL_PROCESSORS = frozenset(
    "EpsilonLogitsWarper EtaLogitsWarper InfNanRemoveLogitsProcessor LogitNormalization "
    "MinPLogitsWarper RepetitionPenaltyLogitsProcessor SuppressTokensLogitsProcessor "
    "TemperatureLogitsWarper TopHLogitsWarper TopKLogitsWarper TopPLogitsWarper "
    "TypicalLogitsWarper".split()
)


def asked_processors(
    given: Sequence[LogitsProcessor] | None, repetition_penalty: float | None
) -> LogitsProcessorList:
    """Collect what changes the scores before the temperature.

    Args:
        given: by the caller.
        repetition_penalty: option of that name.

    Raises:
        ValueError: for a processor that counts on tokens arriving one by one.
    """
    processors = _check_processors(given)
    if repetition_penalty is not None and repetition_penalty != 1:
        processors.append(logits_process.RepetitionPenaltyLogitsProcessor(repetition_penalty))
    return processors


def asked_warpers(top_k: int | None, top_p: float | None) -> LogitsProcessorList:
    """Collect what changes them after the temperature: the options of these names."""
    warpers = LogitsProcessorList()
    if top_k:
        warpers.append(logits_process.TopKLogitsWarper(top_k))
    if top_p is not None and top_p < 1:
        warpers.append(logits_process.TopPLogitsWarper(top_p))
    return warpers


def _check_processors(processors: Sequence[LogitsProcessor] | None) -> LogitsProcessorList:
    if processors is not None and not isinstance(processors, Sequence):
        raise TypeError(
            f"`logits_processor` must be a list of processors, got {type(processors).__name__}; "
            "put a single one in brackets."
        )
    for processor in processors or []:
        kind = type(processor)
        if kind.__module__ == logits_process.__name__ and kind.__name__ not in _PARALLEL_PROCESSORS:
            raise ValueError(
                f"{kind.__name__} reads the tokens in the order they were written, which parallel "
                f"decoding does not have; these work: {', '.join(sorted(_PARALLEL_PROCESSORS))}, "
                "and processors of your own that look at one position at a time."
            )
    return LogitsProcessorList(processors or [])
