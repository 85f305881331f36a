"""The fill-mask pipeline: the likeliest words at each mask, by one pass of the model."""

from typing import Any

import torch
from transformers import FillMaskPipeline, PreTrainedModel

from .decoding_layout import plan_layout
from .options import shown
from .pipeline_infilling import check_no_blank
from .pipeline_maskgit import MaskGitPipeline, check_tokenizer_kwargs, is_masked_decoder
from .special_tokens import never_emitted, special_ids
from .unknown_tokens import checked_limit


class MaskGitFillMaskPipeline(MaskGitPipeline, FillMaskPipeline):
    """transformers' fill-mask pipeline, showing words only.

    transformers ranks every row of the embedding table: the mask itself, padding, reserved tokens
    and rows that no token has. Here these have probability 0, as wherever the model predicts, and
    are never shown; nor are the unknown token and an end of text, which are no words. `top_k` shows
    fewer where there are fewer. Everything else is as in `transformers.FillMaskPipeline`.
    """

    @property
    def _never_shown(self) -> list[int]:
        config = self.model.config
        fields, num_rows = vars(config), config.get_text_config().vocab_size
        return sorted(special_ids(fields) | never_emitted(fields, num_rows))

    def _sanitize_parameters(  # type: ignore[override]
        self,
        top_k: int | None = None,
        targets: Any = None,
        tokenizer_kwargs: Any = None,
        max_unknown_share: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if top_k is not None and not (type(top_k) is int and top_k >= 1):
            raise ValueError(f"`top_k` must be an integer of at least 1, got {top_k!r}.")
        check_tokenizer_kwargs(tokenizer_kwargs)
        named = [targets] if isinstance(targets, str) else targets
        if named is not None and not (
            isinstance(named, list | tuple) and named and all(isinstance(t, str) for t in named)
        ):
            raise ValueError(
                f"`targets` must be a word or a list of words, got {shown(targets)}; for all words "
                "leave it out."
            )
        parameters: Any = super()._sanitize_parameters(top_k, targets, tokenizer_kwargs)
        if max_unknown_share is not None:
            parameters[0]["max_unknown_share"] = checked_limit(max_unknown_share)
        return parameters

    def preprocess(  # type: ignore[override]
        self,
        inputs: str,
        return_tensors: str | None = None,
        tokenizer_kwargs: dict[str, Any] | None = None,
        max_unknown_share: float | None = None,
    ) -> Any:
        """Tokenise a text, as transformers does.

        Args:
            inputs: a text with masks.
            return_tensors: as in transformers.
            tokenizer_kwargs: as in transformers.
            max_unknown_share: see `Tolerance`.

        Raises:
            ValueError: for a blank, which only the infilling pipeline fills, or a text that is too
                long, or mostly unknown to the tokenizer.
        """
        check_no_blank(inputs, "the fill-mask pipeline")
        encoded = super().preprocess(inputs, return_tensors, tokenizer_kwargs)
        padded = bool((tokenizer_kwargs or {}).get("padding"))
        real = self._attention_mask(encoded, padded=padded)
        encoded["attention_mask"] = real
        length, limit = int(real.sum()), self.model.max_positions
        if limit is not None and length > limit:
            raise ValueError(
                f"The text comes to {length} tokens, the encoder takes {limit}. Shorten it, or cut "
                'it: tokenizer_kwargs={"truncation": True}.'
            )
        named = {} if max_unknown_share is None else {"max_unknown_share": max_unknown_share}
        self._check_read([inputs], encoded, named)
        return encoded

    def get_target_ids(self, targets: str | list[str]) -> Any:
        """Return the ids of words to choose between, an array.

        Raises:
            ValueError: for one that is never shown, or that the tokenizer does not know.
        """
        ids = super().get_target_ids(targets)
        impossible = sorted(set(ids.tolist()) & set(self._never_shown))
        if impossible:
            token = self.tokenizer.convert_ids_to_tokens(impossible[0])
            raise ValueError(
                f"`targets` come to the token {token!r} (id {impossible[0]}), which is no word "
                "that the model could write; name words of its vocabulary."
            )
        return ids

    def _forward(self, model_inputs: Any) -> Any:  # type: ignore[override]
        """Predict, with every text of a batch where it stands alone: at the left edge."""
        real = model_inputs["attention_mask"]
        if not bool(real[:, 0].all()):
            layout = plan_layout(real, 0, torch.zeros_like(real[:, 0]))
            model_inputs = {name: layout.pack(value) for name, value in model_inputs.items()}
        return super()._forward(model_inputs)

    def postprocess(  # type: ignore[override]
        self, model_outputs: Any, top_k: int = 5, target_ids: Any = None
    ) -> Any:
        """Rank the words at each mask.

        Args:
            model_outputs: of one text: `logits` (1, L, V) and `input_ids` (1, L).
            top_k: how many to show.
            target_ids: an array of ids to choose between; None is all.
        """
        logits = model_outputs["logits"]
        never = torch.tensor(self._never_shown, dtype=torch.long, device=logits.device)
        top_k = min(top_k, logits.shape[-1] - len(never))
        outputs = {**model_outputs, "logits": logits.index_fill(-1, never, -torch.inf)}
        return super().postprocess(outputs, top_k, target_ids)


class FillMaskDispatch(FillMaskPipeline):
    """What stands for the task "fill-mask": our pipeline for our models.

    For every other model it makes transformers' own, which is then what it always was.
    """

    def __new__(cls, model: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        """Make the pipeline that fits the model."""
        kind = MaskGitFillMaskPipeline if is_masked_decoder(model) else FillMaskPipeline
        return kind(model, *args, **kwargs)
