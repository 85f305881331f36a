"""Texts with blanks become drafts: split at their holes, given lengths, tokenised."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from .blank_lengths import LENGTHS, Blank, Blanks
from .decoding_lengths import body_lengths
from .noise import row_seeds
from .pipeline_blanks import MOST_DIGITS, Holes, Template, locate, split_at_holes
from .pipeline_choices import Choices, check_written, span_between
from .pipeline_drafts import Draft
from .pipeline_fields import check_names, fitting_lengths, of_row
from .pipeline_maskgit import MaskGitPipeline
from .token_pattern import TokenPattern

_BLANK_LENGTHS = (1, 4)
_LENGTH = next(iter(LENGTHS))
_PATTERN_LENGTH = next(name for name, how in LENGTHS.items() if how.by_mass)


class DraftingPipeline(MaskGitPipeline):
    """A pipeline that reads texts with blanks."""

    def _drafts(
        self,
        holes: Holes,
        of_hole: dict[int, TokenPattern],
        length: str | None,
        draft: Callable[[Sequence[int], dict[str, Any] | None], Draft],
        options: dict[str, Any] | None,
        copies: int,
        own_key: Callable[[], int],
    ) -> tuple[list[list[Draft]], bool]:
        """Give the blanks of a text their lengths.

        Args:
            holes: the text.
            of_hole: the patterns of some holes.
            length: row of `LENGTHS`; None for the default.
            draft: tokenises the text with these lengths, and checks it by these options.
            options: of decoding.
            copies: returned texts.
            own_key: draws or returns what the lengths are drawn with.

        Returns:
            For each returned text those that it is chosen from, and whether the patterns choose.
        """
        limit = self.model.max_positions or 10**MOST_DIGITS
        numbers = [number for number, blank in enumerate(holes.blanks) if blank]
        given = [blank for blank in holes.blanks if blank]
        fitting = fitting_lengths(given, [of_hole.get(number) for number in numbers], limit)
        ranges = [
            Blank(fitting[i][0], fitting[i][-1]) if i in fitting else blank
            for i, blank in enumerate(given)
        ]
        how = LENGTHS[self._length(length, bool(of_hole))]
        first = draft([blank.low for blank in ranges], options)
        room = limit - len(first.columns["input_ids"])
        keys = row_seeds(1, copies, [0], None, True)  # not too many
        if all(low == high for low, high in ranges):
            return [[first]] * len(keys), False
        blanks = Blanks(ranges, first.length, room, self.model.config, fitting)
        drafts: list[list[Draft]] = []
        for of_copy in row_seeds(1, copies, [own_key()], None, True):
            if how.by_mass and drafts:
                drafts.append(drafts[0])  # which are all
                continue
            drafts.append([draft(one, None) for one in how.choose(blanks, of_copy)])
        return drafts, how.by_mass

    def _holes(
        self,
        text: str,
        blank_lengths: tuple[int, int] | None,
        length: str | None,
        patterns: dict[str, TokenPattern] | None,
        pattern: TokenPattern | None,
    ) -> tuple[Holes, dict[int, TokenPattern]]:
        """Split a text at its holes, and tell which of them has a pattern."""
        unnamed = Blank(*(blank_lengths or _BLANK_LENGTHS))
        if blank_lengths is None and LENGTHS[length or _LENGTH].reads_histogram:
            unnamed = Blank(1, None)
        mask = self.tokenizer.mask_token
        fields: dict[str | None, Blank] | None = None
        if patterns is not None:
            fields = dict.fromkeys(patterns, Blank(1, None))
        holes = split_at_holes(text, mask, unnamed, fields)
        if patterns is not None:
            check_names(holes, patterns)
            if pattern is not None:
                raise ValueError("Give `patterns` by name or `pattern`, not both.")
            named = enumerate(holes.names)
            return holes, {i: patterns[name] for i, name in named if name in patterns}
        if pattern is None or len(holes.blanks) > 1 or holes.blanks[0] is None:
            return holes, {}
        # The pattern knows how long a blank without a number may be.
        return split_at_holes(text, mask, Blank(1, None)), {0: pattern}

    def _length(self, length: str | None, with_patterns: bool) -> str:
        """Resolve how lengths are decided, which patterns have a say in."""
        if length is None:
            return _PATTERN_LENGTH if with_patterns else _LENGTH
        if with_patterns and not LENGTHS[length].with_patterns:
            able = ", ".join(repr(name) for name, how in LENGTHS.items() if how.with_patterns)
            raise ValueError(
                f"length={length!r} does not know which lengths a pattern takes; use one of {able}."
            )
        if LENGTHS[length].by_mass and not with_patterns:
            raise ValueError(
                f"length={length!r} goes by the patterns of blanks, and no blank of this text has "
                "one; give `patterns`, or use length='uniform'."
            )
        return length

    def _choices(
        self,
        holes: Holes,
        choices: tuple[str, ...],
        tokenizer_kwargs: dict[str, Any] | None,
        options: dict[str, Any] | None,
    ) -> Choices:
        """Tokenise a text with each choice in its hole.

        Raises:
            ValueError: for a choice that the model could not write, or that is mostly unknown to
                the tokenizer, and for an option of decoding that there is not.
        """
        self._check_known(options or {})
        blank = [1 for hole in holes.blanks if hole]
        # The tokens around the blank, to be found again around each choice.
        around = self._draft(holes, tokenizer_kwargs, {}, None, blank, options)
        filled = tuple(choice.join(holes.typed) for choice in choices)
        drafts = []
        for choice, text in zip(choices, filled, strict=True):
            columns = self._tokenised(text, tokenizer_kwargs)[0]
            ids = columns["input_ids"]
            span = span_between(ids, around, choice)
            check_written(ids[slice(*span)], self.model.config, self.tokenizer, choice)
            alone = self.tokenizer([choice], add_special_tokens=False)
            self._check_read([choice], alone, options)
            drafts.append(self._measured(columns, replace(around.template, spans=(span,))))
        return Choices(choices, filled, tuple(drafts))

    def _draft(
        self,
        holes: Holes,
        tokenizer_kwargs: dict[str, Any] | None,
        of_hole: dict[int, TokenPattern],
        whole: TokenPattern | None,
        lengths: Sequence[int],
        options: dict[str, Any] | None,
    ) -> Draft:
        """Tokenise a text whose blanks have these lengths; with options, check what was read."""
        counts = holes.counts(lengths)
        masked = holes.masked(self.tokenizer.mask_token, counts)
        columns, inputs = self._tokenised(masked, tokenizer_kwargs)
        ids = columns["input_ids"]
        template = locate(holes, counts, ids, self.tokenizer.mask_token_id)
        if options is not None:
            self._check_read([masked], inputs, options)
        measured = self._measured(columns, template)
        of_span = {i: of_hole[hole] for i, hole in enumerate(template.holes) if hole in of_hole}
        joint = whole or of_row(template, ids, of_span)
        spaced = {number: pattern.spaced for number, pattern in of_span.items()}
        return replace(measured, pattern=joint, patterned=spaced)

    def _tokenised(
        self, text: str, tokenizer_kwargs: dict[str, Any] | None
    ) -> tuple[dict[str, list[int]], Any]:
        """Return the columns of a text without padding, and what the tokenizer made of it."""
        # These win over the caller's options: the mask tells padding from text.
        asked = {"return_tensors": "pt", "return_attention_mask": True}
        inputs = self.tokenizer(text, **{**(tokenizer_kwargs or {}), **asked})
        real = inputs["attention_mask"][0] == 1
        return {name: row[0][real].tolist() for name, row in inputs.items()}, inputs

    def _measured(self, columns: dict[str, list[int]], template: Template) -> Draft:
        """Make a draft of a text that the encoder can take."""
        ids = columns["input_ids"]
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
