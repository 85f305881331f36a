"""Logits and scores that are no distribution, refused before anything is chosen by them.

A nan or an infinity would not stop a decoding: it makes constant text, or an id beyond the
vocabulary, and a bound of nan.

Letters: V vocabulary, N positions.
"""

from typing import Any

from torch import Tensor


def check_logits(logits: Tensor) -> None:
    """Refuse what a denoiser gives, where it is no distribution.

    Args:
        logits: (N, V); -inf says that a token cannot stand there.

    Raises:
        ValueError: for nan or +inf, and for a position with -inf alone.
    """
    # One comparison per logit, of the seven or more that scoring and drawing take: nan wins it.
    check_highest(logits.amax(-1))


def check_highest(highest: Tensor) -> None:
    """Do as `check_logits`, with the highest logit of each position, (N,)."""
    if not _are_finite(highest):
        finite = highest.isfinite()
        raise ValueError(
            f"The denoiser's logits are not finite at {int((~finite).sum())} of {len(finite)} "
            "positions: nan, +inf, or nothing but -inf. Look for weights that are not finite "
            "([n for n, p in model.named_parameters() if not p.isfinite().all()]); float16 may "
            "overflow where float32 does not, and so may a large `guidance_scale`."
        )


def _are_finite(numbers: Tensor) -> bool:
    # A number times 0 is 0; nan and infinities make nan of it, and of the sum. Half the operations
    # of `isfinite().all()`, which count where a pass is small.
    return bool((numbers * 0).sum() == 0)


def check_same_shape(name: str, scores: Any, given: Tensor) -> None:
    """Refuse scores of another shape than those that a function was given to change.

    Raises:
        ValueError: saying what it must return.
    """
    if not isinstance(scores, Tensor) or scores.shape != given.shape:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"`{name}` must return the scores it got, changed: one per position and token, "
            f"{tuple(given.shape)}, got {got}."
        )


def check_processed(logits: Tensor) -> None:
    """Refuse what processors made of finite logits, where it is no distribution any more.

    Args:
        logits: (N, V), with -inf at what cannot stand there.

    Raises:
        ValueError: for nan or +inf, and for a position with nothing left.
    """
    if _are_finite(logits.amax(-1)):
        return
    if not bool((logits > -float("inf")).any(-1).all()):
        raise ValueError(
            "`logits_processor` leaves nothing to emit at a position: every id that may stand "
            "there has the score -inf; let it keep one."
        )
    raise ValueError(
        "`logits_processor` or `repetition_penalty` gives nan or +inf as the score of an id that "
        "may be emitted; scores must be finite, or -inf for an id that must not be."
    )


def check_critic_scores(scores: Tensor) -> None:
    """Refuse what a critic gives, where it is no number.

    Args:
        scores: (N,) log-odds.

    Raises:
        ValueError: for nan.
    """
    nan = scores.isnan()
    if bool(nan.any()):
        raise ValueError(
            f"The token critic's scores are nan at {int(nan.sum())} of {len(nan)} positions. Look "
            "for weights that are not finite "
            "([n for n, p in model.named_parameters() if not p.isfinite().all()])."
        )


def no_text(row: int) -> ValueError:
    """Return what tells that a row of a pass can match no more."""
    return ValueError(
        f"Row {row} of a pass can match its pattern no more: a callback has changed its text, or "
        "the denoiser gives -inf to every text of the pattern."
    )
