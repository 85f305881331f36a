"""How long the texts were that a generator learned from: beyond them, a warning."""

from typing import Protocol

from transformers.utils import logging

logger = logging.get_logger(__name__)


class Trained(Protocol):
    """What is asked of a configuration."""

    trained_length: int | None


def note_length(config: Trained, longest: int | None) -> None:
    """Remember that texts of this length were learned from.

    Args:
        config: of the generator; longer texts that it learned from before stay the longest.
        longest: tokens, framing included; None where nobody knows.
    """
    if longest is not None:
        config.trained_length = max(longest, config.trained_length or 0)


def warn_of_length(config: Trained, longest: int, what: str) -> None:
    """Warn, once, of texts that are longer than all that the generator learned from.

    The encoder takes them, so nothing fails: positions that no update has seen look like any other.

    Args:
        config: knows how long those were, or does not (None), as with weights trained elsewhere.
        longest: tokens of the longest text, framing included.
        what: is asked for, and may be poor there.
    """
    trained = getattr(config, "trained_length", None)
    if trained is not None and longest > trained:
        # Without the length of this text, so that the sentence is one and the same all day.
        logger.warning_once(
            f"A text has more than the {trained} tokens, framing included, of the longest one that "
            f"this model was trained on; {what} may be poor there. Shorten it, or train on longer "
            "texts."
        )
