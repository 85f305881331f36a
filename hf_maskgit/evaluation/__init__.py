"""How good a model is."""

from .bound import (
    ONE_PASS,
    TWO_PASSES,
    CriticAuroc,
    NelboOutput,
    TextStatistics,
    critic_auroc,
    evaluate_nelbo,
    masked_accuracy,
    nelbo,
    text_statistics,
    unigram_cross_entropy,
)

__all__ = [
    "ONE_PASS",
    "TWO_PASSES",
    "CriticAuroc",
    "NelboOutput",
    "TextStatistics",
    "critic_auroc",
    "evaluate_nelbo",
    "masked_accuracy",
    "nelbo",
    "text_statistics",
    "unigram_cross_entropy",
]
