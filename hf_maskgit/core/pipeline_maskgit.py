"""What the pipelines of this library share."""

import os
from typing import Any

from transformers import Pipeline, PreTrainedModel


def is_masked_decoder(model: PreTrainedModel) -> bool:
    """Tell whether a model is one of ours; also one whose class came with its checkpoint."""
    return getattr(model.config, "model_type", None) == "maskgit"


class MaskGitPipeline(Pipeline):
    """A pipeline around one of our models, saved as the model is."""

    model: Any  # a class that came with a checkpoint is no class of this package
    tokenizer: Any

    def __init__(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        if not is_masked_decoder(model):
            kind = getattr(model.config, "model_type", type(model).__name__)
            raise ValueError(
                f"{type(self).__name__} needs a model that fills many masks at once, got one of "
                f"type {kind!r}. Make one with MaskGitForMaskedLM.from_encoder() and train it."
            )
        super().__init__(model, *args, **kwargs)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        with_code: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Save model and tokenizer; transformers itself would add half of the code.

        Args:
            save_directory: the folder.
            with_code: as for the model, see `MaskGitForMaskedLM.save_pretrained`.
            **kwargs: for both, as in transformers.
        """
        self.model.save_pretrained(save_directory, with_code=with_code, **kwargs)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory, **kwargs)
