"""A text that is written and rewritten token by token: blanks, alternatives, masking again."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ..core.decoding_prompts import ids_of_decoding
from ..core.text_reader import TextReader
from ..core.unknown_tokens import counted_before, sum_of
from .recording import Frame, Shown, Unmasking, UnmaskingRecorder
from .token_texts import TokenTexts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..core.modeling_maskgit import MaskGitForMaskedLM


@dataclass(frozen=True)
class Cell:
    """One place of a text.

    Attributes:
        token: its id; None while it is masked.
        blank: number of the blank that it belongs to; None where it was typed.
        step: the pass of the last filling that revealed it, from 0; -1 where that knew it.
        probability: that it had then, in [0, 1]; None where it was known.
    """

    token: int | None
    blank: int | None = None
    step: int = -1
    probability: float | None = None


@dataclass(frozen=True)
class EditedText:
    """A text between two edits; every edit returns another one.

    Attributes:
        before: ids of the framing before it.
        cells: its places.
        after: ids of the framing behind it.
    """

    before: tuple[int, ...]
    cells: tuple[Cell, ...]
    after: tuple[int, ...]

    def ids(self, mask_token_id: int) -> torch.Tensor:
        """Return the text as the model reads it, (1, L) long."""
        written = [mask_token_id if c.token is None else c.token for c in self.cells]
        return torch.tensor([[*self.before, *written, *self.after]])

    def choose(self, place: int, token: int) -> "EditedText":
        """Write a token at a place.

        Raises:
            ValueError: for a place that the text does not have.
        """
        return self._with(place, [Cell(token, self._cell(place).blank)])

    def mask(self, place: int) -> "EditedText":
        """Mask a token again; one that was typed becomes a blank of its own.

        Raises:
            ValueError: for a place that the text does not have.
        """
        cell = self._cell(place)
        blank = self._new_blank() if cell.blank is None else cell.blank
        return self._with(place, [Cell(None, blank)])

    def lengthen(self, place: int) -> "EditedText":
        """Put one more mask behind a place of a blank.

        Raises:
            ValueError: for a place that was typed, or that the text does not have.
        """
        cell = self._of_blank(place, "longer")
        return self._with(place, [cell, Cell(None, cell.blank)])

    def shorten(self, place: int) -> "EditedText":
        """Take a place out of a blank.

        Raises:
            ValueError: for the only place of its blank, one that was typed, or one that the text
                does not have.
        """
        cell = self._of_blank(place, "shorter")
        if sum(other.blank == cell.blank for other in self.cells) == 1:
            raise ValueError(
                "A blank has one token at least, and this is its only one; choose or mask it, or "
                "write the text anew."
            )
        return self._with(place, [])

    def _cell(self, place: int) -> Cell:
        if not 0 <= place < len(self.cells):
            raise ValueError(
                f"The text has {len(self.cells)} tokens, and number {place + 1} was asked for; "
                "choose one of them first."
            )
        return self.cells[place]

    def _of_blank(self, place: int, how: str) -> Cell:
        cell = self._cell(place)
        if cell.blank is None:
            raise ValueError(
                f"This token was typed, and only a blank becomes {how}; mask it first, or choose a "
                "token that was written."
            )
        return cell

    def _new_blank(self) -> int:
        return 1 + max((c.blank for c in self.cells if c.blank is not None), default=-1)

    def _with(self, place: int, cells: Sequence[Cell]) -> "EditedText":
        return replace(self, cells=(*self.cells[:place], *cells, *self.cells[place + 1 :]))


class Editor:
    """Reads, fills and questions texts with one model.

    Args:
        pipeline: for infilling; its model and tokenizer are used.
        joined: write no space between tokens, as in proteins and molecules.
    """

    def __init__(self, pipeline: Any, joined: bool = False) -> None:
        self._pipeline, self._joined = pipeline, joined
        self.model: MaskGitForMaskedLM = pipeline.model
        self.tokenizer: PreTrainedTokenizerBase = pipeline.tokenizer
        self.texts = TokenTexts(self.tokenizer, joined)

    def read(self, text: str, seed: int) -> EditedText:
        """Read a text with blanks or masks; a blank of several lengths gets one of them.

        Args:
            text: as `InfillingPipeline` takes it.
            seed: draws the lengths.

        Raises:
            ValueError: for a text without a blank, or with one that is none; and for one that is
                mostly unknown to the tokenizer.
        """
        draft = self._pipeline.preprocess(text, seed=seed)["drafts"][0][0]
        self._check_known(text)
        ids: list[int] = draft.columns["input_ids"]
        mask, framing = self.tokenizer.mask_token_id, self.texts.left_out
        real = [i for i, token in enumerate(ids) if token == mask or token not in framing]
        first, last = real[0], real[-1] + 1
        typed = Counter(token for token in ids if token in framing and token != mask)
        special = list(typed - Counter(self.tokenizer("")["input_ids"]))
        if special:
            name = self.tokenizer.convert_ids_to_tokens(special[0])
            raise ValueError(
                f"The text holds the special token {name!r}, which frames texts and is no part of "
                "one; leave it out."
            )
        blanks = {i: n for n, span in enumerate(draft.template.spans) for i in range(*span)}
        cells = [
            Cell(None if ids[i] == mask else ids[i], blanks.get(i)) for i in range(first, last)
        ]
        return EditedText(tuple(ids[:first]), tuple(cells), tuple(ids[last:]))

    def _check_known(self, text: str) -> None:
        """Refuse what the model knows next to nothing of, in words for whom it was not made by."""
        masked = re.sub(r"{[^{}]*}", str(self.tokenizer.mask_token), text)
        reading = sum_of(TextReader(self.tokenizer).read([masked], self.tokenizer([masked])))
        if reading.share > self.model.resolve_options(None, None, {}).max_unknown_share:
            raise ValueError(
                f"{reading.of('the text')}, so the model would see next to nothing of it. Write "
                f"other {reading.noun}, or write them as it knows them: upper or lower case, with "
                "spaces between them or without."
            )

    def fill(
        self,
        edited: EditedText,
        *,
        seed: int,
        on_frame: Callable[[Frame], None] | None = None,
        **options: Any,
    ) -> tuple[EditedText, Unmasking]:
        """Fill every mask; all else stays.

        Args:
            edited: with a mask.
            seed: draws the tokens.
            on_frame: called with each frame as soon as it is there.
            **options: of `generate`, such as `preset` and `steps`.

        Returns:
            The text, and how it came about.

        Raises:
            ValueError: as `generate`, and for a text without a mask.
        """
        if all(cell.token is not None for cell in edited.cells):
            raise ValueError("Nothing is masked; mask a token again, or write a text with a blank.")
        recorder = UnmaskingRecorder(self.tokenizer, joined=self._joined, on_frame=on_frame)
        with counted_before():  # by words, when it was read
            written: Any = self.model.generate(
                edited.ids(self.tokenizer.mask_token_id).to(self.model.device),
                seed=seed,
                num_return_sequences=1,
                return_dict_in_generate=True,
                callback_on_step_end=recorder,
                **options,
            )
        start = len(edited.before)
        found = zip(
            edited.cells,
            written.sequences[0, start:].tolist(),
            written.reveal_steps[0, start:].tolist(),
            written.reveal_log_probabilities[0, start:].tolist(),
            strict=False,  # behind them stands the framing
        )
        cells = [
            Cell(token, cell.blank, step, math.exp(nats) if step >= 0 else None)
            for cell, token, step, nats in found
        ]
        return replace(edited, cells=tuple(cells)), recorder.unmasking()

    @torch.no_grad()
    def alternatives(
        self, edited: EditedText, place: int, count: int = 8
    ) -> list[tuple[int, str, float]]:
        """Ask the model what else might stand at a place, given all other tokens.

        Args:
            edited: the text; its masks stay masks.
            place: which place, from 0.
            count: how many are returned at most.

        Returns:
            Id, text and probability of each, the likeliest first.

        Raises:
            ValueError: for a place that the text does not have.
        """
        ids = edited.mask(place).ids(self.tokenizer.mask_token_id).to(self.model.device)
        asked = torch.zeros_like(ids, dtype=torch.bool)
        asked[0, len(edited.before) + place] = True
        real = torch.ones_like(ids)
        logits = self.model(input_ids=ids, attention_mask=real, masked_positions=asked).logits[0]
        options = self.model.resolve_options(None, None, {})
        never, ends = ids_of_decoding(self.model.config, options)
        logits = logits.float()
        logits[[*never, *ends]] = -torch.inf
        best = logits.softmax(0).topk(min(count, len(logits)))
        return [
            (token, self.texts.of(token).text, likely)
            for token, likely in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            if likely > 0
        ]

    def frame(self, edited: EditedText) -> Frame:
        """Return the text as a frame, to be drawn as any other."""
        return tuple(
            Shown(None)
            if cell.token is None
            else Shown(*self.texts.of(cell.token), cell.step, cell.probability)
            for cell in edited.cells
        )

    def text(self, edited: EditedText) -> str:
        """Write the text, for whom it is copied; a mask as the tokenizer writes it."""
        ids = edited.ids(self.tokenizer.mask_token_id)[0, len(edited.before) :]
        decoded = str(self.tokenizer.decode(ids[: len(edited.cells)]))
        return "".join(decoded.split()) if self._joined else decoded
