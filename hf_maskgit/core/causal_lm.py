"""What a caller meets who takes a generator for a causal language model.

A pipeline that writes texts loads the model by `AutoModelForCausalLM`, and so do tools that score
texts from left to right by the logits of one pass. Here each token sees itself and all behind it:
such scores would be alike for every continuation, and nobody would notice.
"""

from typing import Any, TypeVar

from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from .configuration_maskgit import MaskGitConfig
from .row_checks import can_be_read

logger = logging.get_logger(__name__)

Generator = TypeVar("Generator", bound=PreTrainedModel)


def as_causal_lm(kind: type[Generator]) -> type[Generator]:
    """Return what `AutoModelForCausalLM` is to load in place of a class of generators.

    It makes models of that very class, which remember how they were loaded.

    Args:
        kind: the class, with an attribute `taken_for_causal_lm`.
    """

    def marked(loaded: Any) -> Any:
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with `output_loading_info`
        model.taken_for_causal_lm = True
        return loaded

    class TakenForCausalLM(kind):  # type: ignore[misc,valid-type]
        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
            return marked(kind.from_pretrained(*args, **kwargs))

        @classmethod
        def _from_config(cls, *args: Any, **kwargs: Any) -> Any:
            return marked(kind._from_config(*args, **kwargs))

    # Pipelines compare the names of classes.
    TakenForCausalLM.__name__ = TakenForCausalLM.__qualname__ = kind.__name__
    return TakenForCausalLM


def check_left_to_right(config: MaskGitConfig, input_ids: Tensor | None, as_causal: bool) -> None:
    """Refuse to predict at every token of a text in which nothing is masked, or warn of it once.

    Args:
        config: knows the mask.
        input_ids: (B, L) long.
        as_causal: whether the model was loaded by `AutoModelForCausalLM`: refused; else a warning,
            as every masked LM has logits at visible tokens.

    Raises:
        ValueError: saying what to ask instead.
    """
    if input_ids is None or config.mask_token_id is None or not can_be_read(input_ids):
        return
    if bool((input_ids == config.mask_token_id).any()):
        return
    said = (
        "No token of the text is masked, and the logits that are asked for are not those of a "
        "causal language model: at each position the model sees the token itself and all behind "
        "it, so they tell nothing of how likely the text is. For a likelihood ask "
        "hf_maskgit.nelbo(), for a text model.generate()"
    )
    if as_causal:
        raise ValueError(
            f"{said}, and for logits of a masked LM load the generator with "
            "MaskGitForMaskedLM.from_pretrained() instead of AutoModelForCausalLM."
        )
    logger.warning_once(f"{said}, and for logits at single positions name `masked_positions`.")
