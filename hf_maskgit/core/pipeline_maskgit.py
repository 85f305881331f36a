"""What the pipelines of this library share."""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from transformers import Pipeline, PreTrainedModel

from .argument_checks import describes_generator
from .generation_config_maskgit import OPTIONS, MaskGitGenerationConfig, unknown_options
from .options import shown
from .special_tokens import check_tokenizer
from .text_reader import TextReader, named
from .unknown_tokens import check_read, sum_of


def is_masked_decoder(model: PreTrainedModel) -> bool:
    """Tell whether a model is one of ours, see `describes_generator`."""
    return describes_generator(model.config)


class MaskGitPipeline(Pipeline):
    """A pipeline around one of our models, saved as the model is.

    What becomes of a text depends on the text and its seed, never on its neighbours in a batch.
    """

    model: Any  # a class that came with a checkpoint is no class of this package
    tokenizer: Any
    _reader: TextReader | None = None

    def __init__(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        if not is_masked_decoder(model):
            kind = getattr(model.config, "model_type", type(model).__name__)
            raise ValueError(
                f"{type(self).__name__} needs a model that fills many masks at once, got one of "
                f"type {kind!r}. Make one with MaskGitForMaskedLM.from_encoder() and train it."
            )
        super().__init__(model, *args, **kwargs)
        if self.tokenizer is not None:
            check_tokenizer(vars(self.model.config), self.tokenizer)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Do the pipeline's work for one text or several; for none there is nothing to do.

        Args:
            inputs: a text, or a list, generator or data set of texts; a column of a data set.
            *args: none.
            **kwargs: see the class.
        """
        inputs = listed(inputs)
        if isinstance(inputs, list) and not inputs:
            return []  # transformers would look at the first
        return super().__call__(inputs, *args, **kwargs)

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

    def _check_read(
        self, texts: Sequence[str], encoded: Any, options: Mapping[str, Any] | None
    ) -> None:
        """Refuse what is mostly unknown to the tokenizer; warn where more than a little is.

        Args:
            texts: what one input is made of.
            encoded: what the tokenizer made of them.
            options: of decoding, for `max_unknown_share`.

        Raises:
            ValueError: saying which words are unknown.
        """
        if self._reader is None or self._reader.tokenizer is not self.tokenizer:
            self._reader = TextReader(self.tokenizer)
        reading = sum_of(self._reader.read(texts, encoded))
        if reading.unknown:
            asked = dict(options or {})
            if self._pipeline_calls_generate:  # fill-mask does not
                asked = self._prepare_generate_kwargs(asked)
            limit = self._resolved(asked).max_unknown_share
            check_read(reading, named(" ".join(texts)), limit)

    def _attention_mask(self, inputs: Mapping[str, Any], *, padded: bool) -> Tensor:
        """Return which tokens of a text are real, (1, P) long; among other rows it is asked.

        Args:
            inputs: what the tokenizer made of it; FNet's makes no mask.
            padded: padding was asked for, and is told by its id then.
        """
        if "attention_mask" in inputs:
            return cast(Tensor, inputs["attention_mask"])
        ids: Tensor = inputs["input_ids"]
        return (
            (ids != self.tokenizer.pad_token_id).long() if padded else torch.ones_like(ids).long()
        )

    def _check_known(self, options: Mapping[str, Any]) -> None:
        """Refuse keywords that `generate` would refuse, where it is not called.

        Raises:
            ValueError: naming them.
        """
        known = OPTIONS.keys() | inspect.signature(self.model.generate).parameters.keys()
        if unknown := sorted(options.keys() - known):
            raise ValueError(unknown_options(unknown))

    def _resolved(self, options: Mapping[str, Any]) -> MaskGitGenerationConfig:
        """Return the options of decoding as `generate` will understand them.

        Args:
            options: its keywords.
        """
        named = {name: value for name, value in options.items() if name in OPTIONS}
        resolved: MaskGitGenerationConfig = self.model.resolve_options(
            options.get("generation_config"), options.get("preset"), named
        )
        return resolved


def listed(inputs: Any) -> Any:
    """Return several inputs as a list: transformers takes a tuple, or a column, for one input."""
    several = isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes)
    return list(inputs) if several else inputs


def check_tokenizer_kwargs(given: Any) -> None:
    """Refuse what are no keywords of a tokenizer.

    Raises:
        ValueError: for anything but None or a dict.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(
            "`tokenizer_kwargs` must be a dict of the tokenizer's keywords, such as "
            f'{{"truncation": True}}, got {shown(given)}.'
        )


def refuse_generator_in_workers() -> None:
    """Refuse to draw from a caller's generator where that is a copy.

    Raises:
        ValueError: in a worker process of a data loader.
    """
    if get_worker_info() is not None:
        # Each worker would draw the same numbers, and the caller's own would stay where it was.
        raise ValueError(
            "`generator` cannot be shared with the processes of `num_workers`; give a `seed`, or "
            "leave `num_workers` at 0."
        )


def shift_columns(allowed: Any, real: Tensor, copies: int) -> Any:
    """Count the columns of `allowed_token_ids` from where each row begins, not its padding.

    Args:
        allowed: as of `generate`; a dict names columns of the row as it would be alone.
        real: (B, P), 1 at real tokens.
        copies: returned rows per row.

    Returns:
        The same for this batch: a dict becomes one for each of the B * `copies` returned rows.
    """
    if not isinstance(allowed, Mapping) or not all(type(column) is int for column in allowed):
        return (
            allowed  # for all columns, for rows the caller has counted, or for `generate` to refuse
        )
    starts = real.argmax(1).repeat_interleave(copies).tolist()
    # what is no column of the row alone stays none: never a column of its padding
    return [{c if c < 0 else c + start: ids for c, ids in allowed.items()} for start in starts]
