"""The infilling pipeline: text with blanks goes in, the same text without blanks comes out."""

import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .noise import fresh_seed, keyed_generator
from .options import shown
from .pipeline_maskgit import (
    MaskGitPipeline,
    check_tokenizer_kwargs,
    refuse_generator_in_workers,
    shift_columns,
)
from .pipeline_splicing import Piece, splice
from .unknown_tokens import counted_before

# "{blank" ends a word: "{blanket}" is text. What follows is checked, so that a slip is no text.
_BLANK = re.compile(r"\{blank(?!\w)(?P<rest>[^{}]*\}?)")
_LENGTHS = re.compile(r"(?::(?P<low>\d+)(?:-(?P<high>\d+))?)?\}")
_LENGTH_STREAM = 0x626C616E6B  # tells these draws from those of `generate` under the same seed
_MOST_DIGITS = 6  # of the length of a blank: its masks are written out before they are counted


def holds_blank(text: str) -> bool:
    """Tell whether the infilling pipeline would look for a blank in a text, well written or not."""
    return _BLANK.search(text) is not None


def check_no_blank(text: str, who: str) -> None:
    """Refuse a text with a blank where blanks are not filled, rather than leave it in the text.

    Args:
        text: of the caller.
        who: does not fill blanks, for the sentence.

    Raises:
        ValueError: for a blank, well written or not, and for what is no text.
    """
    if not isinstance(text, str):
        raise ValueError(
            f"{who[0].upper()}{who[1:]} reads a text (str) or a list of texts, got "
            f"{shown(text)} of type {type(text).__name__}."
        )
    if holds_blank(text):
        raise ValueError(
            f"The text {text!r} holds a blank, which {who} does not fill. Write the tokenizer's "
            'mask token once per token to fill, or use pipeline("infilling", model=...), which '
            "draws lengths for blanks."
        )


@dataclass(frozen=True)
class _Template:
    """A text whose blanks have lengths.

    Attributes:
        typed: the k + 1 stretches around the k spans, as typed.
        spans: first and last-plus-one token of each span, counted without padding.
    """

    typed: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


class InfillingPipeline(MaskGitPipeline):
    """Fill the masks and blanks of a text.

    A text may hold the tokenizer's own mask token, one per token to fill, and blanks, one per
    span: `{blank:3}` for three tokens, `{blank:2-5}` for two to five, `{blank}` for a number of
    `blank_lengths`. Other braces are text.

        >>> fill = pipeline("infilling", model="my-model")
        >>> fill("The {blank:2} sat on the [MASK].", seed=0)["infilled_text"]

    Each text gives a dict, or a list of dicts with `num_return_sequences` above 1:

    - `infilled_text` (str): the text. What was typed stays as it was typed.
    - `token_ids` (list of int): its tokens, with the framing and without padding.
    - `spans` (list of dict): for each blank, and each run of masks, `text`, `token_ids` and
      `start`, the place of its first token in the list above.

    With `return_probabilities=True` each span also has `probabilities`: for each token, the
    probability that the model gave it at the moment it was revealed, among the tokens that can be
    emitted and before temperature, `top_k`, `top_p` and processors. What was masked then and
    revealed later had no part in it, so their product is the probability of the text in the order
    of this very run; it is not the probability of the text.

    Arguments of the constructor and of each call:

    - `blank_lengths` ((int, int), default (1, 4)): the least and the greatest length of `{blank}`;
      every length between is equally likely.
    - `seed` (int): draws lengths and tokens. A text's result depends on the seed and the text
      alone, not on its neighbours or the batch size (up to rounding in float32); the same text
      twice comes out the same twice. Without it each text draws a seed, in the order of the texts,
      from `generator` or torch's global generator.
    - `return_probabilities` (bool).
    - `tokenizer_kwargs` (dict): for the tokenizer.
    - `batch_size` and every option of `MaskGitGenerationConfig`, but for `max_new_tokens`:
      nothing is appended.

    All `num_return_sequences` texts have the same lengths.
    """

    _load_tokenizer = True  # type: ignore[assignment]
    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]
    _load_video_processor = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _pipeline_calls_generate = True

    def __init__(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        if self.tokenizer is None:
            raise ValueError(
                "The infilling pipeline needs the model's tokenizer; pass `tokenizer=`."
            )
        mask, expected = self.tokenizer.mask_token_id, self.model.config.mask_token_id
        if mask != expected:
            raise ValueError(
                f"The tokenizer's mask token has the id {mask}, the model's {expected}. Pass the "
                "tokenizer that the model was trained with."
            )

    def _sanitize_parameters(
        self,
        blank_lengths: Sequence[int] | None = None,
        seed: int | None = None,
        return_probabilities: bool | None = None,
        tokenizer_kwargs: dict[str, Any] | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        check_tokenizer_kwargs(tokenizer_kwargs)
        preprocess: dict[str, Any] = {"tokenizer_kwargs": tokenizer_kwargs, "seed": seed}
        if blank_lengths is not None:
            bounds = list(blank_lengths) if isinstance(blank_lengths, tuple | list) else []
            if not (
                len(bounds) == 2
                and all(type(b) is int for b in bounds)  # True is no length
                and 1 <= bounds[0] <= bounds[1] < 10**_MOST_DIGITS
            ):
                raise ValueError(
                    "`blank_lengths` must be two integers, the least and the greatest number of "
                    "tokens, the least at least 1 and the greatest below "
                    f"{10**_MOST_DIGITS:,}; got {blank_lengths!r}."
                )
            preprocess["blank_lengths"] = tuple(bounds)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, numbers.Integral)):
            raise ValueError(
                f"`seed` must be one int for all texts, got {seed!r}; for a seed per text call the "
                "pipeline once per text."
            )
        if "generator" in generate_kwargs:
            preprocess["generator"] = generate_kwargs["generator"]
        # Of the constructor and of the call: whether tokens are drawn, so that a seed is.
        preprocess["options"] = {**getattr(self, "_forward_params", {}), **generate_kwargs}
        postprocess = {"return_probabilities": return_probabilities}
        return (
            {name: value for name, value in preprocess.items() if value is not None},
            {**generate_kwargs, **({} if seed is None else {"seed": int(seed)})},
            {name: value for name, value in postprocess.items() if value is not None},
        )

    def preprocess(  # type: ignore[override]
        self,
        text: Any,
        blank_lengths: tuple[int, int] = (1, 4),
        seed: int | None = None,
        generator: torch.Generator | None = None,
        tokenizer_kwargs: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Give a text its seed and every blank its length, and tokenise.

        Where nobody names a seed, each text draws one here, in the order of the texts: what is
        drawn later, for a whole batch, would depend on how many texts a batch has.

        Args:
            text: with masks or blanks.
            blank_lengths: of a blank that names none.
            seed: draws the lengths.
            generator: draws the seed where there is none.
            tokenizer_kwargs: for the tokenizer.
            options: of decoding.
        """
        if not isinstance(text, str):
            raise ValueError(
                f"The infilling pipeline fills a text (str) or a list of texts, got {text!r} of "
                f"type {type(text).__name__}."
            )
        if generator is not None:
            refuse_generator_in_workers()
        if seed is None and self._resolved(self._prepare_generate_kwargs(options or {})).do_sample:
            seed = fresh_seed(generator)
        typed, counts = self._parse(text, blank_lengths, seed, generator)
        # A mask token has no length of its own (None) and stands for itself.
        mask = self.tokenizer.mask_token
        masked = typed[0] + "".join(
            mask * (count or 1) + after for count, after in zip(counts, typed[1:], strict=True)
        )
        # These win over the caller's options: the mask tells padding from text.
        asked = {"return_tensors": "pt", "return_attention_mask": True}
        inputs = self.tokenizer(masked, **{**(tokenizer_kwargs or {}), **asked})
        ids = inputs["input_ids"][0][inputs["attention_mask"][0] == 1].tolist()
        template = self._locate(typed, counts, ids)
        self._check_read([masked], inputs, options)
        limit = self.model.max_positions
        if limit is not None and len(ids) > limit:
            raise ValueError(
                f"The text comes to {len(ids)} tokens with its blanks, the encoder takes {limit}. "
                "Shorten the text or its blanks."
            )
        return {**inputs, "template": template, "seed": None if seed is None else int(seed)}

    def _parse(
        self,
        text: str,
        blank_lengths: tuple[int, int],
        seed: int | None,
        generator: torch.Generator | None,
    ) -> tuple[list[str], list[int | None]]:
        """Split a text at its blanks and masks.

        Returns:
            The stretches around them, and the length of each: None for a mask token.
        """
        holes = re.compile(f"{re.escape(self.tokenizer.mask_token)}|{_BLANK.pattern}")
        typed: list[str] = []
        counts: list[int | None] = []
        draws: torch.Generator | None = None
        start = 0
        for hole in holes.finditer(text):
            typed.append(text[start : hole.start()])
            start = hole.end()
            if hole["rest"] is None:
                counts.append(None)
                continue
            low, high = _bounds(hole[0], hole["rest"], blank_lengths)
            if low < high and draws is None:
                key = fresh_seed(generator) if seed is None else int(seed)
                draws = keyed_generator(key, _LENGTH_STREAM)
            # before the first blank of an open length there is nothing to draw from, nor to draw
            drawn = low if draws is None else torch.randint(low, high + 1, (), generator=draws)
            counts.append(int(drawn))
        typed.append(text[start:])
        if not counts:
            raise ValueError(
                f"There is nothing to fill in {text!r}. Write {self.tokenizer.mask_token} for each "
                "token to fill, or {blank}, {blank:3} or {blank:2-5} for a span of tokens."
            )
        return typed, counts

    def _locate(self, typed: list[str], counts: list[int | None], ids: list[int]) -> _Template:
        """Find each span among the tokens; masks side by side are one.

        With "a {blank:2} b [MASK] [MASK]" and the ids [CLS] a m m b m m [SEP]:

            counts   2, None, None             from `_parse`
            typed    "a ", " b ", " ", ""      what stands around the three
            spans    (2, 4), (5, 7)            the two masks have become one span
            result   "a ", " b ", ""           and the space between them is gone
        """
        mask = self.tokenizer.mask_token_id
        places = [i for i, token in enumerate(ids) if token == mask]
        expected = sum(count or 1 for count in counts)
        if len(places) != expected:
            raise ValueError(
                f"The text has {expected} masks with its blanks, the tokenizer reads "
                f"{len(places)}. If `tokenizer_kwargs` cut the text, shorten it instead."
            )
        stretches = [typed[0]]
        spans: list[tuple[int, int]] = []
        grows = False  # whether the last span is of mask tokens
        at = 0
        for count, after in zip(counts, typed[1:], strict=True):
            first = places[at]
            at += count or 1
            stop = places[at - 1] + 1
            if grows and count is None and spans[-1][1] == first and not stretches[-1].strip():
                spans[-1] = (spans[-1][0], stop)
                stretches[-1] = after
            else:
                spans.append((first, stop))
                stretches.append(after)
            grows = count is None
        return _Template(tuple(stretches), tuple(spans))

    def _forward(self, model_inputs: dict[str, Any], **generate_kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        template = model_inputs["template"]
        tensors = {k: v for k, v in model_inputs.items() if isinstance(v, Tensor)}
        batch_size = len(tensors["input_ids"])
        options = self._prepare_generate_kwargs(generate_kwargs)
        if options.get("max_new_tokens") is not None:
            raise ValueError(
                "The infilling pipeline fills what is blank and appends nothing, so it has no "
                "`max_new_tokens`. Put {blank:8} at the end of the text to have 8 tokens there."
            )
        if options.get("seed") is None or options.get("generator") is None:  # both are refused
            # Each row has the seed of its text, so that its neighbours do not matter.
            seeds = model_inputs["seed"]
            seeds = seeds if isinstance(seeds, list) else [seeds]
            options |= {"seed": None if None in seeds else seeds, "generator": None}
        if options.get("allowed_token_ids") is not None:
            copies = self._resolved(options).num_return_sequences
            options["allowed_token_ids"] = shift_columns(
                options["allowed_token_ids"], tensors["attention_mask"], copies
            )
        options["return_dict_in_generate"] = True
        with counted_before():  # by words, text by text
            output = self.model.generate(**tensors, **options)
        # (B * n, L) becomes (B, n, L): transformers takes a batch apart along the first dimension.
        shape = (batch_size, -1, output.sequences.shape[-1])
        return {
            "sequences": output.sequences.reshape(shape),
            "log_probabilities": output.reveal_log_probabilities.reshape(shape),
            "attention_mask": tensors["attention_mask"],
            "template": template,
        }

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Any], return_probabilities: bool = False
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Put the filled tokens into the text.

        Args:
            model_outputs: of one text; the sequences (1, n, L).
            return_probabilities: see the class.
        """
        template: _Template = model_outputs["template"]
        real = model_outputs["attention_mask"][0] == 1
        results = []
        for i, row in enumerate(model_outputs["sequences"][0]):
            ids = row[real].tolist()
            text, written = splice(self.tokenizer, _pieces(template, ids))
            spans: list[dict[str, Any]] = [
                {"text": span, "start": start, "token_ids": ids[start:stop]}
                for span, (start, stop) in zip(written, template.spans, strict=True)
            ]
            if return_probabilities:
                given = model_outputs["log_probabilities"][0, i][real].exp().tolist()
                for span, (start, stop) in zip(spans, template.spans, strict=True):
                    span["probabilities"] = given[start:stop]
            results.append({"infilled_text": text, "token_ids": ids, "spans": spans})
        return results[0] if len(results) == 1 else results


def _bounds(blank: str, rest: str, blank_lengths: tuple[int, int]) -> tuple[int, int]:
    """Read the least and the greatest length of a blank."""
    parsed = _LENGTHS.fullmatch(rest)
    if parsed is None:
        raise ValueError(
            f"{blank!r} is no blank; write {{blank}}, {{blank:3}} for three tokens or "
            "{blank:2-5} for two to five."
        )
    if parsed["low"] is None:
        return blank_lengths
    if max(len(number or "") for number in parsed.groups()) > _MOST_DIGITS:
        raise ValueError(
            f"{shown(blank)} is longer than any text; a blank takes fewer than "
            f"{10**_MOST_DIGITS:,} tokens."
        )
    low = int(parsed["low"])
    high = low if parsed["high"] is None else int(parsed["high"])
    if not 1 <= low <= high:
        raise ValueError(
            f"{blank!r} has no length; a blank takes at least 1 token, and the smaller number "
            "comes first."
        )
    return low, high


def _pieces(template: _Template, ids: list[int]) -> list[Piece]:
    """Split the tokens of a finished text as its template says."""
    pieces, start = [], 0
    for typed, (first, stop) in zip(template.typed, template.spans, strict=False):
        pieces += [Piece(ids[start:first], typed), Piece(ids[first:stop])]
        start = stop
    return [*pieces, Piece(ids[start:], template.typed[-1])]
