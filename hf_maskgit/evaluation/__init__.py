"""How good a model is."""

from .accuracy import masked_accuracy
from .batches import EvaluatedGenerator
from .bound import ONE_PASS, TWO_PASSES, NelboOutput, evaluate_nelbo, nelbo
from .calibration import Calibration, calibration, draw_reliability
from .corpus import Comparison, CorpusEstimate, compare_bounds, per_token
from .counting import TextStatistics, evaluate_unigram, text_statistics, unigram_cross_entropy
from .critic import CriticAuroc, critic_auroc
from .exact import ExactOutput, exact_likelihood
from .judges import CausalJudge, Featuriser, Judgement, mauve
from .scores import MutantScore, SequenceScore, score, score_mutants
from .text_lengths import LengthDistance, length_distance, written_lengths
from .text_quality import TextMeter
from .text_units import text_units
from .text_variety import Copies, copied_ngrams, distinct_ngrams, self_bleu, unit_entropy
from .windows import WindowedTexts, windowed

__all__ = [
    "ONE_PASS",
    "TWO_PASSES",
    "Calibration",
    "CausalJudge",
    "Comparison",
    "Copies",
    "CorpusEstimate",
    "CriticAuroc",
    "EvaluatedGenerator",
    "ExactOutput",
    "Featuriser",
    "Judgement",
    "LengthDistance",
    "MutantScore",
    "NelboOutput",
    "SequenceScore",
    "TextMeter",
    "TextStatistics",
    "WindowedTexts",
    "calibration",
    "compare_bounds",
    "copied_ngrams",
    "critic_auroc",
    "distinct_ngrams",
    "draw_reliability",
    "evaluate_nelbo",
    "evaluate_unigram",
    "exact_likelihood",
    "length_distance",
    "masked_accuracy",
    "mauve",
    "nelbo",
    "per_token",
    "score",
    "score_mutants",
    "self_bleu",
    "text_statistics",
    "text_units",
    "unigram_cross_entropy",
    "unit_entropy",
    "windowed",
    "written_lengths",
]
