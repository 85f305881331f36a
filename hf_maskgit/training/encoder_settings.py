"""Settings of an encoder that options change: any of a new one, the dropouts of a trained one.

Dropout has no weights and works in training alone: with another one a trained encoder computes the
same function. Every other setting shapes weights, or what is done with them.
"""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

_DROPOUT = "drop"  # in each of their names: hidden_dropout_prob, attention_dropout, layerdrop


def check_dropouts(settings: Mapping[str, Any]) -> None:
    """Refuse settings that a trained encoder cannot take.

    Raises:
        ValueError: naming one that is no dropout, or no probability.
    """
    for name, value in settings.items():
        if _DROPOUT not in name:
            raise ValueError(
                f"`encoder_overrides` sets {name!r}. That changes the encoder's shape or what its "
                "weights mean, which pretrained weights do not allow: of them only dropout may be "
                "changed. Leave it out, or add `from_scratch`."
            )
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise ValueError(
                f"`encoder_overrides` sets {name!r} to {value!r}; it is a probability in [0, 1)."
            )


def check_known(settings: Mapping[str, Any], config: PreTrainedConfig) -> None:
    """Refuse settings that a kind of encoder does not have.

    Raises:
        ValueError: naming one, and all that it has.
    """
    for name in settings:
        # transformers would keep an unknown setting without a word, and a slip would go unnoticed
        if not hasattr(config, name):
            raise ValueError(
                f"`encoder_overrides` names {name!r}, which a {config.model_type!r} encoder does "
                f"not have; it has {', '.join(sorted(config.to_dict()))}."
            )
