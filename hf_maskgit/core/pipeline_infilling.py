"""The infilling pipeline: text with blanks goes in, the same text without blanks comes out."""

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from .blank_lengths import LENGTHS, Blank, Blanks
from .decoding_lengths import body_lengths
from .equal_texts import warn_of_equal
from .noise import fresh_seed, row_seeds
from .options import shown
from .pipeline_blanks import BLANK, MOST_DIGITS, Holes, Template, locate, split_at_holes
from .pipeline_drafts import (
    LENGTH_SAMPLES,
    Draft,
    Filled,
    check_lengths,
    likeliest,
    padded,
    per_row,
)
from .pipeline_maskgit import (
    MaskGitPipeline,
    check_tokenizer_kwargs,
    refuse_generator_in_workers,
)
from .pipeline_splicing import Piece, splice
from .unknown_tokens import counted_before

_BLANK_LENGTHS = (1, 4)


def holds_blank(text: str) -> bool:
    """Tell whether the infilling pipeline would look for a blank in a text, well written or not."""
    return BLANK.search(text) is not None


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

    - `blank_lengths` ((int, int), default (1, 4)): the least and the greatest length of `{blank}`.
    - `length` (str, default "uniform"): how the length of a blank with a range is decided.
      "uniform": every length of its range is equally likely. "sampled": the length of the whole
      text is drawn from those that training saw, given the ranges; of the lengths of several blanks
      that come to it all are equally likely, and `{blank}` without `blank_lengths` may be as long
      as such a text. "likeliest": every length is tried (128 choices at most), and the filled text
      is kept whose bound in nats, as `nelbo` measures it over the whole text, less ln(h + 1) is
      least; h is the number of training texts of its length, 0 where nobody knows. Of equals the
      shortest is kept.
    - `length_samples` (int, default 16): maskings that estimate each of these bounds; even.
    - `seed` (int): draws lengths and tokens. A text's result depends on the seed and the text
      alone, not on its neighbours or the batch size (up to rounding in float32); the same text
      twice comes out the same twice. Without it each text draws a seed, in the order of the texts,
      from `generator` or torch's global generator.
    - `return_probabilities` (bool).
    - `tokenizer_kwargs` (dict): for the tokenizer.
    - `batch_size` and every option of `MaskGitGenerationConfig`, but for `max_new_tokens`:
      nothing is appended.

    Each of `num_return_sequences` texts decides on lengths of its own.
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
        length: str | None = None,
        length_samples: int | None = None,
        seed: int | None = None,
        return_probabilities: bool | None = None,
        tokenizer_kwargs: dict[str, Any] | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        check_tokenizer_kwargs(tokenizer_kwargs)
        check_lengths(blank_lengths, length, length_samples)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, numbers.Integral)):
            raise ValueError(
                f"`seed` must be one int for all texts, got {seed!r}; for a seed per text call the "
                "pipeline once per text."
            )
        given = {**getattr(self, "_forward_params", {}), **generate_kwargs}
        preprocess = {
            "tokenizer_kwargs": tokenizer_kwargs,
            "seed": seed,
            "blank_lengths": None if blank_lengths is None else tuple(blank_lengths),
            "length": length,
            "generator": generate_kwargs.get("generator"),
            # Of the constructor and of the call: how many texts, and whether tokens are drawn.
            "options": {name: given[name] for name in given if name != "length_samples"},
        }
        own = {"length_samples": length_samples, "seed": None if seed is None else int(seed)}
        postprocess = {"return_probabilities": return_probabilities}
        return (
            {name: value for name, value in preprocess.items() if value is not None},
            {**generate_kwargs, **{n: value for n, value in own.items() if value is not None}},
            {name: value for name, value in postprocess.items() if value is not None},
        )

    def preprocess(  # type: ignore[override]
        self,
        text: Any,
        blank_lengths: tuple[int, int] | None = None,
        length: str = next(iter(LENGTHS)),
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
            length: row of `LENGTHS`.
            seed: draws the lengths.
            generator: draws the seed where there is none.
            tokenizer_kwargs: for the tokenizer.
            options: of decoding.

        Returns:
            `drafts`, for each text that is to be returned those that it is chosen from, and the
            text's `seed`.
        """
        if not isinstance(text, str):
            raise ValueError(
                f"The infilling pipeline fills a text (str) or a list of texts, got {text!r} of "
                f"type {type(text).__name__}."
            )
        if generator is not None:
            refuse_generator_in_workers()
        resolved = self._resolved(self._prepare_generate_kwargs(options or {}))
        if seed is None and resolved.do_sample:
            seed = fresh_seed(generator)
        unnamed = Blank(*(blank_lengths or _BLANK_LENGTHS))
        if blank_lengths is None and LENGTHS[length].reads_histogram:
            unnamed = Blank(1, None)
        holes = split_at_holes(text, self.tokenizer.mask_token, unnamed)
        first = self._draft(holes, [b.low for b in holes.blanks if b], tokenizer_kwargs, options)
        limit = self.model.max_positions or 10**MOST_DIGITS
        blanks = Blanks(
            [b for b in holes.blanks if b],
            first.length,
            limit - len(first.columns["input_ids"]),
            self.model.config,
        )
        copies = row_seeds(1, resolved.num_return_sequences, [0], None, True)  # not too many
        if all(low == high for low, high in blanks.ranges):
            return {"drafts": [[first]] * len(copies), "seed": seed}
        key = fresh_seed(generator) if seed is None else int(seed)
        drafts = []
        for of_copy in row_seeds(1, len(copies), [key], None, True):
            chosen = LENGTHS[length].choose(blanks, of_copy)
            drafts.append([self._draft(holes, one, tokenizer_kwargs, None) for one in chosen])
        return {"drafts": drafts, "seed": None if seed is None else int(seed)}

    def _draft(
        self,
        holes: Holes,
        lengths: Sequence[int],
        tokenizer_kwargs: dict[str, Any] | None,
        options: dict[str, Any] | None,
    ) -> Draft:
        """Tokenise a text whose blanks have these lengths; with options, check what was read."""
        counts = holes.counts(lengths)
        masked = holes.masked(self.tokenizer.mask_token, counts)
        # These win over the caller's options: the mask tells padding from text.
        asked = {"return_tensors": "pt", "return_attention_mask": True}
        inputs = self.tokenizer(masked, **{**(tokenizer_kwargs or {}), **asked})
        real = inputs["attention_mask"][0] == 1
        columns = {name: row[0][real].tolist() for name, row in inputs.items()}
        ids = columns["input_ids"]
        template = locate(holes, counts, ids, self.tokenizer.mask_token_id)
        if options is not None:
            self._check_read([masked], inputs, options)
        limit = self.model.max_positions
        if limit is not None and len(ids) > limit:
            raise ValueError(
                f"The text comes to {len(ids)} tokens with its blanks, the encoder takes {limit}. "
                "Shorten the text or its blanks."
            )
        row = torch.tensor([ids])
        return Draft(
            columns, template, int(body_lengths(self.model.config, row, torch.ones_like(row)))
        )

    def _forward(  # type: ignore[override]
        self,
        model_inputs: dict[str, Any],
        length_samples: int = LENGTH_SAMPLES.default,
        **generate_kwargs: Any,
    ) -> dict[str, Any]:
        """Fill every draft, and of those that one text is chosen from keep the likeliest."""
        options = self._prepare_generate_kwargs(generate_kwargs)
        if options.get("max_new_tokens") is not None:
            raise ValueError(
                "The infilling pipeline fills what is blank and appends nothing, so it has no "
                "`max_new_tokens`. Put {blank:8} at the end of the text to have 8 tokens there."
            )
        several = isinstance(model_inputs["drafts"][0][0], list)  # texts, and not copies of one
        texts = model_inputs["drafts"] if several else [model_inputs["drafts"]]
        seeds = model_inputs["seed"] if several else [model_inputs["seed"]]
        copies = len(texts[0])
        greedy = None in seeds
        of_copies = [0 if greedy else s for s in seeds]
        keys = row_seeds(len(texts), copies, of_copies, None, True)
        own_seeds = options.get("seed") is None or options.get("generator") is None
        # Each returned text, and of each the drafts that it is chosen from.
        returned = [drafts for text in texts for drafts in text]
        rows = [(place, draft) for place, drafts in enumerate(returned) for draft in drafts]
        options |= {"num_return_sequences": 1, "return_dict_in_generate": True}
        if own_seeds:  # else both are given, which `generate` refuses
            # Each row has the seed of its text, so that its neighbours do not matter.
            drawn = None if greedy else [keys[place] for place, _ in rows]
            options |= {"seed": drawn, "generator": None}
        if isinstance(options.get("allowed_token_ids"), list):
            options["allowed_token_ids"] = per_row(options["allowed_token_ids"], rows, returned)
        columns = padded([draft for _, draft in rows], self.tokenizer, self.device)
        with counted_before():  # by words, text by text
            output = self.model.generate(**columns, **options)
        filled: list[list[Filled]] = [[] for _ in returned]
        probabilities = output.reveal_log_probabilities.tolist()
        for (place, draft), ids, logs in zip(
            rows, output.sequences.tolist(), probabilities, strict=True
        ):
            size = len(draft.columns["input_ids"])
            filled[place].append(Filled(ids[:size], logs[:size], draft))
        kept = [
            candidates[0]
            if len(candidates) == 1
            else likeliest(candidates, self.model, self.tokenizer, keys[place], length_samples)
            for place, candidates in enumerate(filled)
        ]
        of_text = [kept[i : i + copies] for i in range(0, len(kept), copies)]
        for number, written in enumerate(of_text):
            equal = all(one.ids == written[0].ids for one in written)
            if equal and len(set(keys[number * copies : (number + 1) * copies])) > 1:
                warn_of_equal(copies)
        return {"written": of_text if several else of_text[0]}

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Any], return_probabilities: bool = False
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Put the filled tokens into the text.

        Args:
            model_outputs: of one text.
            return_probabilities: see the class.
        """
        results = []
        for filled in model_outputs["written"]:
            template = filled.draft.template
            text, written = splice(self.tokenizer, _pieces(template, filled.ids))
            spans: list[dict[str, Any]] = [
                {"text": span, "start": start, "token_ids": filled.ids[start:stop]}
                for span, (start, stop) in zip(written, template.spans, strict=True)
            ]
            if return_probabilities:
                given = torch.tensor(filled.log_probabilities).exp().tolist()
                for span, (start, stop) in zip(spans, template.spans, strict=True):
                    span["probabilities"] = given[start:stop]
            results.append({"infilled_text": text, "token_ids": filled.ids, "spans": spans})
        return results[0] if len(results) == 1 else results


def _pieces(template: Template, ids: list[int]) -> list[Piece]:
    """Split the tokens of a finished text as its template says."""
    pieces, start = [], 0
    for typed, (first, stop) in zip(template.typed, template.spans, strict=False):
        pieces += [Piece(ids[start:first], typed), Piece(ids[first:stop])]
        start = stop
    return [*pieces, Piece(ids[start:], template.typed[-1])]
