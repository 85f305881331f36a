"""The text-generation pipeline for models that decode in parallel."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TextGenerationPipeline
from transformers.pipelines.text_generation import ReturnType
from transformers.utils import ModelOutput
from transformers.utils.chat_template_utils import Chat

from .decoding_lengths import NUM_TOKENS
from .decoding_patterns import per_row
from .noise import row_seeds
from .pipeline_infilling import check_no_blank
from .pipeline_maskgit import MaskGitPipeline, is_masked_decoder, listed, shift_columns
from .pipeline_splicing import Piece, continuation, splice
from .unknown_tokens import counted_before


class MaskGitTextGenerationPipeline(MaskGitPipeline, TextGenerationPipeline):
    """transformers' text-generation pipeline with the right text.

    transformers decodes the new tokens by themselves and appends them to the prompt. Where a
    tokenizer keeps no spaces in its tokens (WordPiece) that loses the space between the two, and
    masks within the prompt come back unfilled. Here the prompt stays as it was typed, the new text
    follows with a space where one belongs, and filled masks show.

    A prompt may end in the tokenizer's closing token: while decoding it stands behind the new
    tokens, as in training. Everything else is as in `transformers.TextGenerationPipeline`.

    What becomes of a text depends on the text and its seed, not on its neighbours or the batch size
    (up to rounding in float32): with one `seed` the same text twice comes out the same twice, and
    texts to fill may stand beside texts to continue. Lists of seeds and patterns are of the rows of
    a batch; a list of `max_new_tokens` is of the texts of the call, whatever the batch size.
    """

    # What nobody names or stores is the model's own; transformers would write 256 tokens.
    _default_generation_config = None  # type: ignore[assignment]

    def __init__(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        tokenizer = args[0] if args else kwargs.get("tokenizer")
        side = getattr(tokenizer, "padding_side", None)
        super().__init__(model, *args, **kwargs)
        if side is not None:
            # transformers makes it pad on the left, which `generate` does not need here, and which
            # would change what the caller does with the tokenizer elsewhere.
            self.tokenizer.padding_side = side

    def __call__(self, text_inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Continue or fill texts, as transformers does.

        Args:
            text_inputs: a text, a chat, or several.
            **kwargs: see the class; `max_new_tokens` may be a list, one entry per text.

        Raises:
            ValueError: for such a list that does not fit, or of chats.
        """
        text_inputs = listed(text_inputs)
        lengths = kwargs.get("max_new_tokens")
        if isinstance(lengths, list):
            texts = text_inputs if isinstance(text_inputs, list) else [text_inputs]
            if len(texts) != len(lengths) or not all(isinstance(text, str) for text in texts):
                raise ValueError(
                    f"`max_new_tokens` has {len(lengths)} entries, and a list of them goes with a "
                    f"list of as many texts (str), got {len(texts)} of type "
                    f"{type(texts[0]).__name__ if texts else 'none'}. Give one number for all."
                )
            del kwargs["max_new_tokens"]
            sized = [_Sized(text, n) for text, n in zip(texts, lengths, strict=True)]
            text_inputs = sized if isinstance(text_inputs, list) else sized[0]
        return super().__call__(text_inputs, **kwargs)

    def _sanitize_parameters(
        self, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        preprocess, forward, postprocess = super()._sanitize_parameters(*args, **kwargs)
        # Of stop strings and patterns, stored ones too; under this name transformers forgets it.
        forward["tokenizer"] = self.tokenizer
        return preprocess, forward, postprocess

    def preprocess(self, prompt_text: "str | Chat", *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Tokenise a prompt, as transformers does.

        Args:
            prompt_text: a text or a chat.
            *args: as in transformers.
            **kwargs: as in transformers.

        Raises:
            ValueError: for a blank, which only the infilling pipeline fills, or a prompt that is
                mostly unknown to the tokenizer.
        """
        messages: list[Any] = getattr(prompt_text, "messages", [])
        if not hasattr(prompt_text, "messages"):
            check_no_blank(prompt_text, "the text-generation pipeline")
        for message in messages:
            if isinstance(message["content"], str):
                check_no_blank(message["content"], "the text-generation pipeline")
        inputs = super().preprocess(prompt_text, *args, **kwargs)
        if isinstance(prompt_text, str):
            self._check_read([kwargs.get("prefix", "") + prompt_text], inputs, kwargs)
        else:  # of a chat its template is no concern of the user's
            said = [m["content"] for m in messages if isinstance(m["content"], str)]
            self._check_read(said, self.tokenizer(said, add_special_tokens=False), kwargs)
        ids = inputs["input_ids"].long()  # no ids at all come as float
        named = {**kwargs, **(kwargs.get("tokenizer_encode_kwargs") or {})}
        real = self._attention_mask(inputs, padded=bool(named.get("padding")))
        if not ids.shape[1]:
            # transformers cannot pad what has no column; one of padding is taken off again.
            ids = torch.full((1, 1), self.tokenizer.pad_token_id or 0)
            real = torch.zeros_like(ids)
        made = {"input_ids": ids, "attention_mask": real, "prompt_text": prompt_text}
        if isinstance(prompt_text, _Sized):
            own = {"prompt_text": str(prompt_text), "max_new_tokens": prompt_text.max_new_tokens}
            made |= own
        return made

    def _forward(self, model_inputs: dict[str, Any], **generate_kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Decode each row as it would be decoded alone, whatever its neighbours are."""
        generate_kwargs.pop("prefix_length", None)  # our lengths are of new tokens
        options = self._prepare_generate_kwargs(generate_kwargs)
        ids, real = model_inputs["input_ids"], model_inputs["attention_mask"]
        copies, seeds = self._seeds(options, len(ids))
        lengths = model_inputs.get("max_new_tokens")
        lengths = [lengths] if isinstance(lengths, int) else lengths
        rows: list[dict[str, Tensor]] = [{} for _ in ids]
        for alike in self._alike(ids, real):
            columns = real[alike].any(0)  # none of an empty text
            text, mask = ids[alike][:, columns], real[alike][:, columns]
            options["seed"] = [seed for row in alike for seed in seeds[row]]
            own = dict(options)
            if own.get("allowed_token_ids") is not None:
                own["allowed_token_ids"] = shift_columns(own["allowed_token_ids"], mask, copies)
            if isinstance(own.get("pattern"), list | tuple):
                patterns = per_row(own["pattern"], len(ids) * copies, copies)
                own["pattern"] = [one for r in alike for one in patterns[r * copies :][:copies]]
            if lengths is not None:
                own["max_new_tokens"] = [lengths[row] for row in alike]
            output = self._written(text, mask, own)
            for i, row in enumerate(alike):
                rows[row] = _row_of(output, i, mask, copies)
                rows[row]["input_ids"] = text[i][mask[i] == 1]
        prompts = model_inputs["prompt_text"]
        if not isinstance(prompts, list):  # one text, which transformers does not take apart
            return {name: value[None] for name, value in rows[0].items()} | {"prompt_text": prompts}
        return {name: [row[name] for row in rows] for name in rows[0]} | {"prompt_text": prompts}

    def _written(self, ids: Tensor, real: Tensor, options: dict[str, Any]) -> Mapping[str, Any]:
        """Decode rows of one kind; of each, what belongs to it and how many new tokens it has."""
        resolved = self._resolved(options)
        # Which of the last columns are a row's own, and which pad it, `generate` tells here alone.
        whole = {**options, "return_dict_in_generate": True}
        varies = NUM_TOKENS[resolved.num_tokens].varies or isinstance(resolved.max_new_tokens, list)
        with counted_before():  # by words, text by text
            output = self.model.generate(
                input_ids=ids, attention_mask=real, **(whole if varies else options)
            )
        if not isinstance(output, ModelOutput):
            return {"sequences": output}
        if resolved.return_dict_in_generate:
            return output
        return {name: output[name] for name in ("sequences", "num_new_tokens")}

    def _seeds(self, options: dict[str, Any], num_rows: int) -> tuple[int, list[list[int]]]:
        """Take the seeds out of the options: how many texts per row, and a seed for each."""
        seed, generator = options.pop("seed", None), options.pop("generator", None)
        resolved = self._resolved(options)
        copies = resolved.num_return_sequences
        one_for_all = isinstance(seed, Integral)
        asked = 1 if one_for_all else num_rows
        draws = resolved.do_sample or NUM_TOKENS[resolved.num_tokens].draws
        seeds = row_seeds(asked, copies, seed, generator, draws)
        seeds = seeds * num_rows if one_for_all else seeds
        return copies, [seeds[i * copies : (i + 1) * copies] for i in range(num_rows)]

    def _alike(self, ids: Tensor, real: Tensor) -> list[list[int]]:
        """Sort rows by what is done: written from nothing, filled, continued; one call does one."""
        masked = ((ids == self.model.config.mask_token_id) & (real == 1)).any(1)
        kinds = torch.stack([real.any(1), masked], 1).tolist()
        sorted_rows: dict[tuple[bool, ...], list[int]] = {}
        for row, kind in enumerate(kinds):
            sorted_rows.setdefault(tuple(kind), []).append(row)
        return list(sorted_rows.values())

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


class _Sized(str):
    """A text with the number of tokens that are to follow it, on its way through transformers."""

    max_new_tokens: int

    def __new__(cls, text: str, max_new_tokens: int) -> "_Sized":
        sized = super().__new__(cls, text)
        sized.max_new_tokens = max_new_tokens
        return sized

    def __reduce__(self) -> tuple[type["_Sized"], tuple[str, int]]:
        """Make it anew in the process of a data loader."""
        return _Sized, (str(self), self.max_new_tokens)


def _row_of(output: Mapping[str, Any], row: int, real: Tensor, copies: int) -> dict[str, Tensor]:
    """Take what belongs to one row out of what `generate` returns, without the row's padding.

    Args:
        output: of B rows, each with its copies.
        row: which one.
        real: (B, P), 1 at real tokens of the prompts.
        copies: returned rows per row.

    Returns:
        Each with the copies first: (copies, columns), (copies,), and of the history (copies,
        passes, columns).
    """
    own = slice(row * copies, (row + 1) * copies)
    num_new = output["sequences"].shape[1] - real.shape[1]
    if "num_new_tokens" in output:  # another row may have got more
        num_new = int(output["num_new_tokens"][own].max())
    length = int(real[row].sum())
    # new tokens follow the last real one, and real ones stand together
    start = int(real[row].argmax()) if length else 0
    columns = slice(start, start + length + num_new)
    taken = {"generated_sequence": output["sequences"][own, columns]}
    for name, value in output.items():
        if name == "history":
            passes = int(output["denoiser_passes"][own].max())
            taken[name] = value[:passes, own, columns].transpose(0, 1)
        elif name not in ("sequences", "num_new_tokens") and isinstance(value, Tensor):
            taken[name] = value[own] if value.ndim == 1 else value[own, columns]
    return taken


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
