"""The infilling pipeline: text with blanks goes in, the same text without blanks comes out."""

import functools
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from .argument_checks import check_whole
from .equal_texts import warn_of_equal
from .noise import fresh_seed, row_seeds
from .options import shown
from .pipeline_blanks import BLANK
from .pipeline_choices import check_choices, check_one_hole, weighed_choices
from .pipeline_drafting import DraftingPipeline
from .pipeline_drafts import (
    LENGTH_SAMPLES,
    Filled,
    check_lengths,
    check_nothing_appended,
    likeliest,
    most_drawn,
    of_each,
    padded,
    per_row,
)
from .pipeline_fields import by_mass, compiled, compiled_one
from .pipeline_maskgit import (
    check_tokenizer_kwargs,
    refuse_generator_in_workers,
)
from .pipeline_splicing import Piece, splice
from .token_pattern import TokenPattern
from .unknown_tokens import counted_before


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


class InfillingPipeline(DraftingPipeline):
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
      "pattern", the default where a blank has a pattern: of the lengths that the patterns take,
      each has a probability in proportion to that with which the first pass writes a text of the
      patterns in it, times h + 1; without sampling the likeliest.
    - `length_samples` (int, default 16): maskings that estimate each of these bounds; even.
    - `patterns` (dict): with it, also an empty one, every word in braces is a blank with a name, a
      field, such as `{name:1-4}`, and these are the patterns of some of them: a `Pattern`, a
      regular expression, a JSON schema (dict) or a list of texts. All are filled jointly. The
      result also has `text`, the same as `infilled_text`, and `fields`: of each name the `value`,
      without spaces around it, and its `probability`, the product of its tokens' probabilities as
      `return_probabilities` shows them, each given that the text will match the patterns.
    - `pattern` (as one of `patterns`): of the one blank, which then needs no number, or of all from
      the first blank to the last; a list of Patterns as of `generate`.
    - `choices` (list of str): instead of filling the one blank, return for each choice a dict of
      `choice`, `text` and `probability`, the likeliest first; they sum up to 1. With equally many
      tokens they are exact under one pass with the blank masked; else they go by the bound in nats
      of the choice given the text around it, less ln(h + 1), from `length_samples` maskings, and
      `std_error` is that of the probability.
    - `num_distinct` (int): of the `num_return_sequences` texts return a list of so many different
      ones at most, the most often drawn first, with their `count`; of equals the first drawn.
    - `seed` (int): draws lengths and tokens. A text's result depends on the seed and the text
      alone, not on its neighbours or the batch size (up to rounding in float32); the same text
      twice comes out the same twice. Without it each text draws a seed, in the order of the texts,
      from `generator` or torch's global generator.
    - `return_probabilities` (bool).
    - `tokenizer_kwargs` (dict): for the tokenizer.
    - `batch_size` and every option of `MaskGitGenerationConfig`, but for `max_new_tokens` and
      `num_tokens`: nothing is appended.

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
        patterns: Any = None,
        choices: Any = None,
        num_distinct: int | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        check_tokenizer_kwargs(tokenizer_kwargs)
        check_lengths(blank_lengths, length, length_samples)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, numbers.Integral)):
            raise ValueError(
                f"`seed` must be one int for all texts, got {seed!r}; for a seed per text call the "
                "pipeline once per text."
            )
        if num_distinct is not None:
            check_whole("num_distinct", num_distinct, 1)
        pattern = None
        if generate_kwargs.get("pattern") is not None:  # a list is for `generate`
            if not isinstance(generate_kwargs["pattern"], list | tuple):
                pattern = compiled_one(generate_kwargs.pop("pattern"), self.tokenizer)
            elif patterns is not None:
                raise ValueError("Give `patterns` by name or a list as `pattern`, not both.")
        given = {**getattr(self, "_forward_params", {}), **generate_kwargs}
        preprocess = {
            "tokenizer_kwargs": tokenizer_kwargs,
            "seed": seed,
            "blank_lengths": None if blank_lengths is None else tuple(blank_lengths),
            "length": length,
            "generator": generate_kwargs.get("generator"),
            "patterns": None if patterns is None else compiled(patterns, self.tokenizer),
            "pattern": pattern,
            "choices": None if choices is None else check_choices(choices),
            "num_distinct": num_distinct,
            # Of the constructor and of the call: how many texts, and whether tokens are drawn.
            "options": {name: given[name] for name in given if name != "length_samples"},
        }
        own = {"length_samples": length_samples, "seed": None if seed is None else int(seed)}
        postprocess = {"return_probabilities": return_probabilities, "num_distinct": num_distinct}
        return (
            {name: value for name, value in preprocess.items() if value is not None},
            {**generate_kwargs, **{n: value for n, value in own.items() if value is not None}},
            {name: value for name, value in postprocess.items() if value is not None},
        )

    def preprocess(  # type: ignore[override]
        self,
        text: Any,
        blank_lengths: tuple[int, int] | None = None,
        length: str | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        tokenizer_kwargs: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        patterns: dict[str, TokenPattern] | None = None,
        pattern: TokenPattern | None = None,
        choices: tuple[str, ...] | None = None,
        num_distinct: int | None = None,
    ) -> dict[str, Any]:
        """Give a text its seed and every blank its length, and tokenise.

        Where nobody names a seed, each text draws one here, in the order of the texts: what is
        drawn later, for a whole batch, would depend on how many texts a batch has.

        Args:
            text: with masks or blanks.
            blank_lengths: of a blank that names none.
            length: row of `LENGTHS`; None for the default.
            seed: draws the lengths.
            generator: draws the seed where there is none.
            tokenizer_kwargs: for the tokenizer.
            options: of decoding.
            patterns: of fields, by name.
            pattern: of the one blank, or of all from the first mask to the last.
            choices: what the one blank may hold.
            num_distinct: how many different texts are asked for.

        Returns:
            `drafts`, for each text that is to be returned those that it is chosen from, the text's
            `seed`, whether `by_mass` they are chosen, and the `choices`, whose texts need none.
        """
        if not isinstance(text, str):
            raise ValueError(
                f"The infilling pipeline fills a text (str) or a list of texts, got {text!r} of "
                f"type {type(text).__name__}."
            )
        if generator is not None:
            refuse_generator_in_workers()
        resolved = self._resolved(self._prepare_generate_kwargs(options or {}))
        if num_distinct is not None and num_distinct > resolved.num_return_sequences:
            raise ValueError(
                f"`num_distinct` asks for {num_distinct} different texts of "
                f"{resolved.num_return_sequences} drawn; draw more with `num_return_sequences`."
            )
        if seed is None and resolved.do_sample:
            seed = fresh_seed(generator)
        item: dict[str, Any] = {"seed": None if seed is None else int(seed), "by_mass": False}
        holes, of_hole = self._holes(text, blank_lengths, length, patterns, pattern)
        if choices is not None:
            check_one_hole(holes)
            key = fresh_seed(generator) if seed is None else int(seed)
            weighed = self._choices(holes, choices, tokenizer_kwargs, options)
            return {**item, "seed": key, "drafts": [[]], "choices": weighed}
        whole = pattern if not of_hole else None  # as `generate` understands it
        draft = functools.partial(self._draft, holes, tokenizer_kwargs, of_hole, whole)
        copies = resolved.num_return_sequences
        own_key = functools.partial(fresh_seed, generator) if seed is None else lambda: int(seed)
        drafts, chooses = self._drafts(holes, of_hole, length, draft, options, copies, own_key)
        return {**item, "drafts": drafts, "by_mass": chooses, "choices": None}

    def _forward(  # type: ignore[override]
        self,
        model_inputs: dict[str, Any],
        length_samples: int = LENGTH_SAMPLES.default,
        **generate_kwargs: Any,
    ) -> dict[str, Any]:
        """Fill every draft, and of those that one text is chosen from keep the likeliest."""
        options = self._prepare_generate_kwargs(generate_kwargs)
        check_nothing_appended(options)
        several = isinstance(model_inputs["by_mass"], list)  # texts, and not copies of one
        items = model_inputs if several else {name: [i] for name, i in model_inputs.items()}
        texts, seeds = items["drafts"], items["seed"]
        if items["choices"][0] is not None:  # of one call all texts have some, or none has
            weighed = self._weighed(items, length_samples)
            return {"weighed": weighed if several else weighed[0]}
        copies = len(texts[0])
        greedy = None in seeds
        of_copies = [0 if greedy else s for s in seeds]
        keys = row_seeds(len(texts), copies, of_copies, None, True)
        own_seeds = options.get("seed") is None or options.get("generator") is None
        self._choose_by_mass(items, options, None if greedy else keys)
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
        if any(draft.pattern is not None for _, draft in rows):
            options["pattern"] = [draft.pattern for _, draft in rows]
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

    def _choose_by_mass(
        self, items: dict[str, Any], options: dict[str, Any], keys: Sequence[int] | None
    ) -> None:
        """Leave one draft of those texts whose patterns choose; `keys` are of returned texts."""
        texts = items["drafts"]
        copies = len(texts[0])
        allowed = of_each(options.get("allowed_token_ids"), len(texts) * copies)
        for number, chooses in enumerate(items["by_mass"]):
            if chooses:
                own = slice(number * copies, (number + 1) * copies)
                resolved = self._resolved({**options, "num_return_sequences": 1})
                resolved.use_cache = False  # for a single pass
                drawn = None if keys is None else keys[own]
                how = drawn, resolved, allowed[own]
                with counted_before():
                    texts[number] = by_mass(texts[number], self.model, self.tokenizer, *how)

    def _weighed(self, items: dict[str, Any], length_samples: int) -> list[list[dict[str, Any]]]:
        """Weigh the choices of every text, each for itself so that its neighbours do not matter."""
        judge = self.model, self.tokenizer
        return [
            weighed_choices(choices, *judge, seed, length_samples)
            for choices, seed in zip(items["choices"], items["seed"], strict=True)
        ]

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: dict[str, Any],
        return_probabilities: bool = False,
        num_distinct: int | None = None,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Put the filled tokens into the text.

        Args:
            model_outputs: of one text.
            return_probabilities: see the class.
            num_distinct: see the class.
        """
        if "weighed" in model_outputs:
            return list(model_outputs["weighed"])
        written = model_outputs["written"]
        results = [self._result(filled, return_probabilities) for filled in written]
        if num_distinct is not None:
            return most_drawn(results, num_distinct)
        return results[0] if len(results) == 1 else results

    def _result(self, filled: Filled, return_probabilities: bool) -> dict[str, Any]:
        template = filled.draft.template
        text, written = splice(self.tokenizer, _pieces(filled))
        spans: list[dict[str, Any]] = [
            {"text": span, "start": start, "token_ids": filled.ids[start:stop]}
            for span, (start, stop) in zip(written, template.spans, strict=True)
        ]
        if return_probabilities:
            given = torch.tensor(filled.log_probabilities).exp().tolist()
            for span, (start, stop) in zip(spans, template.spans, strict=True):
                span["probabilities"] = given[start:stop]
        result: dict[str, Any] = {"infilled_text": text, "token_ids": filled.ids, "spans": spans}
        if template.names is not None:
            result["text"] = text
            result["fields"] = {
                name: {"value": value, "probability": filled.probability(*span)}
                for name, value, span in zip(template.names, written, template.spans, strict=True)
                if name is not None
            }
        return result


def _pieces(filled: Filled) -> list[Piece]:
    """Split the tokens of a finished text as its template says."""
    template, patterned = filled.draft.template, filled.draft.patterned
    pieces, start = [], 0
    for number, (first, stop) in enumerate(template.spans):
        pieces.append(Piece(filled.ids[start:first], template.typed[number]))
        spaced = patterned.get(number)
        pieces.append(Piece(filled.ids[first:stop], apart=number in patterned, spaced=spaced))
        start = stop
    return [*pieces, Piece(filled.ids[start:], template.typed[-1])]
