"""The text-generation pipeline for models that decode in parallel."""

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, TextGenerationPipeline
from transformers.pipelines.text_generation import ReturnType
from transformers.utils.chat_template_utils import Chat

from .pipeline_maskgit import MaskGitPipeline, is_masked_decoder
from .pipeline_splicing import Piece, continuation, splice


class MaskGitTextGenerationPipeline(MaskGitPipeline, TextGenerationPipeline):
    """transformers' text-generation pipeline with the right text.

    transformers decodes the new tokens by themselves and appends them to the prompt. Where a
    tokenizer keeps no spaces in its tokens (WordPiece) that loses the space between the two, and
    masks within the prompt come back unfilled. Here the prompt stays as it was typed, the new text
    follows with a space where one belongs, and filled masks show.

    A prompt may end in the tokenizer's closing token: while decoding it stands behind the new
    tokens, as in training. Everything else is as in `transformers.TextGenerationPipeline`.
    """

    def _sanitize_parameters(
        self, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        preprocess, forward, postprocess = super()._sanitize_parameters(*args, **kwargs)
        if forward.get("stop_strings") is not None:  # under this name transformers forgets it
            forward["tokenizer"] = self.tokenizer
        return preprocess, forward, postprocess

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: dict[str, Any],
        return_type: ReturnType = ReturnType.FULL_TEXT,
        clean_up_tokenization_spaces: bool | None = None,
        continue_final_message: bool | None = None,
        skip_special_tokens: bool | None = None,
        tools: Any = None,
    ) -> list[dict[str, Any]]:
        """Turn sequences into records, as transformers does, with the right text in them."""
        options = (clean_up_tokenization_spaces, continue_final_message, skip_special_tokens)
        records: list[dict[str, Any]] = super().postprocess(
            model_outputs, return_type, *options, tools=tools
        )
        if return_type is ReturnType.TENSORS or getattr(self.tokenizer, "response_template", None):
            return records  # a template that parses replies has its own idea of their text
        prompt_ids: Tensor | None = model_outputs["input_ids"]
        ids = [] if prompt_ids is None else prompt_ids[0].tolist()
        prompt = model_outputs["prompt_text"]
        for record, sequence in zip(records, model_outputs["generated_sequence"][0], strict=True):
            text = self._texts(prompt, ids, sequence.tolist(), skip_special_tokens is not False)
            if return_type is ReturnType.NEW_TEXT:
                record["generated_text"] = text[1]
            elif isinstance(prompt, str):
                record["generated_text"] = text[0] + text[1]
            else:
                _set_last_message(record["generated_text"], prompt, text[1])
        return records

    def _texts(
        self, prompt: "str | Chat", prompt_ids: list[int], sequence: list[int], skips: bool
    ) -> tuple[str, str]:
        """Return the prompt with its masks filled, and what follows it."""
        known, new = sequence[: len(prompt_ids)], sequence[len(prompt_ids) :]
        typed = prompt if isinstance(prompt, str) else str(prompt.messages[-1]["content"])
        if self.tokenizer.mask_token_id in prompt_ids and isinstance(prompt, str):
            typed = self._fill_prompt(typed, prompt_ids, known)
        return typed, continuation(self.tokenizer, typed, known, new, skip_special_tokens=skips)

    def _fill_prompt(self, prompt: str, prompt_ids: list[int], filled: list[int]) -> str:
        typed = prompt.split(self.tokenizer.mask_token)
        mask = self.tokenizer.mask_token_id
        if len(typed) != prompt_ids.count(mask) + 1:
            # The prompt was cut to fit, or its prefix holds masks too.
            return str(self.tokenizer.decode(filled, skip_special_tokens=True))
        pieces, start = [], 0
        for i, text in enumerate(typed):
            stop = prompt_ids.index(mask, start) if i + 1 < len(typed) else len(prompt_ids)
            pieces.append(Piece(filled[start:stop], text))
            if i + 1 < len(typed):
                pieces.append(Piece(filled[stop : stop + 1]))
            start = stop + 1
        return splice(self.tokenizer, pieces)[0]


def _set_last_message(messages: list[dict[str, Any]], chat: Chat, new: str) -> None:
    """Correct the reply in what transformers made of a chat."""
    if len(messages) == len(chat.messages):  # the last message was continued
        new = chat.messages[-1]["content"] + new
    else:
        new = new.lstrip()
    messages[-1] = {**messages[-1], "content": new}


class TextGenerationDispatch(TextGenerationPipeline):
    """What stands for the task "text-generation": our pipeline for our models.

    For every other model it makes transformers' own, which is then what it always was.
    """

    def __new__(cls, model: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        """Make the pipeline that fits the model."""
        ours = is_masked_decoder(model)
        kind = MaskGitTextGenerationPipeline if ours else TextGenerationPipeline
        return kind(model, *args, **kwargs)
