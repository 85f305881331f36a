"""How good a model is."""

from .accuracy import masked_accuracy
from .batches import EvaluatedGenerator
from .bound import ONE_PASS, TWO_PASSES, NelboOutput, evaluate_nelbo, nelbo
from .counting import TextStatistics, evaluate_unigram, text_statistics, unigram_cross_entropy
from .critic import CriticAuroc, critic_auroc
from .exact import ExactOutput, exact_likelihood
from .text_lengths import LengthDistance, length_distance, written_lengths

__all__ = [
    "ONE_PASS",
    "TWO_PASSES",
    "CriticAuroc",
    "EvaluatedGenerator",
    "ExactOutput",
    "LengthDistance",
    "NelboOutput",
    "TextStatistics",
    "critic_auroc",
    "evaluate_nelbo",
    "evaluate_unigram",
    "exact_likelihood",
    "length_distance",
    "masked_accuracy",
    "nelbo",
    "text_statistics",
    "unigram_cross_entropy",
    "written_lengths",
]
