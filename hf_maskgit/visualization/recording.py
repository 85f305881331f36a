"""What happened to each token of a text, pass by pass, as data that every picture is drawn from."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ..hub.visible import visible
from .token_texts import TokenTexts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..core.decoding_state import DecodingState
    from ..core.generation_output import MaskGitGenerationOutput
    from ..core.modeling_maskgit import MaskGitForMaskedLM


class Shown(NamedTuple):
    """One place of a text after one pass.

    Attributes:
        text: of the token without the space before it; None while it is masked.
        joined: whether it goes on with the word before it.
        step: the pass that revealed it, from 0; -1 for a known token and for a mask.
        probability: of the token when it was revealed, in [0, 1], by the denoiser's distribution
            without temperature and filters; None where it is known, masked, or nobody kept it.
    """

    text: str | None
    joined: bool = False
    step: int = -1
    probability: float | None = None


Frame = tuple[Shown, ...]
_MASKED = Shown(None)
_LINE_BREAK = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"


@dataclass(frozen=True)
class Unmasking:
    """How a text came about.

    Attributes:
        frames: the places of the text before the first pass and after each one, as many places in
            every frame; special tokens and padding are left out. Texts are as the tokenizer decodes
            them and may hold anything: what draws them makes them safe.
    """

    frames: tuple[Frame, ...]

    @property
    def num_passes(self) -> int:
        """Passes that were made: frames but the first."""
        return len(self.frames) - 1

    @property
    def summary(self) -> str:
        """How much was written in how many passes: "14 tokens in 7 passes"."""
        tokens = sum(place.step >= 0 for place in self.frames[-1])
        return (
            f"{tokens} token{'s' * (tokens != 1)} in "
            f"{self.num_passes} pass{'es' * (self.num_passes != 1)}"
        )

    @property
    def text(self) -> str:
        """The text as it stands after the last pass; a mask shows as three dots."""
        return text_of(self.frames[-1])


def letters_of(text: str) -> str:
    """Return a token's text as it is drawn: on one line, control characters as signs."""
    return visible(text.replace("\n", _LINE_BREAK).replace("\t", " "))


def text_of(frame: Frame, hidden: str = "\N{MIDDLE DOT}" * 3) -> str:
    """Write a frame as one line, control characters as signs."""
    words = [
        ("" if place.joined else " ") + (hidden if place.text is None else letters_of(place.text))
        for place in frame
    ]
    return "".join(words).strip()


def said_of(place: Shown, num_passes: int) -> str:
    """Say in a sentence when a token came and how sure it was."""
    if place.text is None:
        return "Still masked."
    if place.step < 0:
        return "Known from the start."
    sure = "" if place.probability is None else f", with probability {place.probability:.3g}"
    return f"Revealed in pass {place.step + 1} of {num_passes}{sure}."


def from_steps(
    tokens: Sequence[str], reveal_steps: Sequence[int], skip: Sequence[str] = ()
) -> Unmasking:
    """Make the frames of a text whose tokens and passes are known.

    Args:
        tokens: the finished text's tokens; a leading "##" joins a piece to the token before.
        reveal_steps: pass in which each was revealed, from 0; -1 for a known token.
        skip: tokens to leave out, for example padding.
    """
    places = [
        Shown(token.removeprefix("##"), token.startswith("##"), step)
        for token, step in zip(tokens, reveal_steps, strict=True)
        if token not in skip
    ]
    return _by_steps(places, max(reveal_steps, default=-1) + 1)


def from_output(
    output: "MaskGitGenerationOutput",
    tokenizer: "PreTrainedTokenizerBase",
    row: int = 0,
    joined: bool = False,
) -> Unmasking:
    """Read how a row came about from what `generate` returned.

    Without `output_history` a token that was masked again shows from its last reveal on, and what
    stood there before is not seen.

    Args:
        output: of `generate` with `return_dict_in_generate=True`.
        tokenizer: the model's.
        row: which of its rows.
        joined: write no space between tokens, as in proteins and molecules.

    Raises:
        TypeError: for anything else, such as the ids alone.
        ValueError: for a row that it does not have.
    """
    sequences: Any = getattr(output, "sequences", None)
    steps: Any = getattr(output, "reveal_steps", None)
    log_probabilities: Any = getattr(output, "reveal_log_probabilities", None)
    if not all(isinstance(t, Tensor) for t in (sequences, steps, log_probabilities)):
        raise TypeError(
            "How a text came about stands in what `generate` returns with "
            f"return_dict_in_generate=True; got {type(output).__name__}."
        )
    if not 0 <= row < len(sequences):
        raise ValueError(f"`row` must be from 0 to {len(sequences) - 1}, got {row}.")
    texts = TokenTexts(tokenizer, joined)
    ids, reveals = sequences[row].tolist(), steps[row].tolist()
    kept = [place for place, i in enumerate(ids) if i not in texts.left_out]
    last = [
        _revealed(texts, ids[place], reveals[place], float(log_probabilities[row, place]))
        for place in kept
    ]
    if output.history is None:
        return _by_steps(last, max(reveals, default=-1) + 1)
    mask = tokenizer.mask_token_id
    frames = [tuple(place if place.step < 0 else _MASKED for place in last)]
    for step, found in enumerate(output.history[:, row].tolist()):
        before, now = frames[-1], []
        for number, place in enumerate(kept):
            if found[place] == mask:
                now.append(_MASKED)
            elif step >= last[number].step:
                now.append(last[number])
            elif before[number].text == (text := texts.of(found[place])).text:
                now.append(before[number])
            else:  # what replaced it later is what the output knows the probability of
                now.append(Shown(*text, step))
        frames.append(tuple(now))
    return Unmasking(_without_repeats(frames))


class UnmaskingRecorder:
    """Notes how a row comes about: `callback_on_step_end` of `generate`.

    Probabilities are noted where `generate` keeps them, with `return_dict_in_generate=True`.

    Args:
        tokenizer: the model's.
        row: which of the returned rows.
        joined: write no space between tokens, as in proteins and molecules.
        on_frame: called with each frame as soon as it is there, the first before any pass's.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        row: int = 0,
        joined: bool = False,
        on_frame: Callable[[Frame], None] | None = None,
    ) -> None:
        self._texts, self._row, self._on_frame = TokenTexts(tokenizer, joined), row, on_frame
        self._ids: list[list[int]] = []
        self._frames: list[list[Shown]] = []
        self._tail: list[bool] = []

    def __call__(self, step: int, state: "DecodingState") -> None:
        """Note the row after a pass.

        Raises:
            ValueError: for a row that the batch does not have.
        """
        if not 0 <= self._row < len(state.text):
            raise ValueError(f"`row` must be from 0 to {len(state.text) - 1}, got {self._row}.")
        ids, masked = state.text[self._row].tolist(), state.masked[self._row].tolist()
        written = (state.block[self._row] >= 0).tolist()
        probabilities = state.log_probabilities[self._row].tolist()
        if not self._frames:
            self._tail = (state.can_end[self._row] & (state.block[self._row] >= 0)).tolist()
            self._note(
                ids,
                [
                    _MASKED if new else Shown(*self._texts.of(i))
                    for i, new in zip(ids, written, strict=True)
                ],
            )
        before_ids, before = self._ids[-1], self._frames[-1]
        now = []
        for place, token in enumerate(ids):
            if masked[place]:
                now.append(_MASKED)
            elif before[place].text is not None and before_ids[place] == token:
                now.append(before[place])
            else:
                now.append(_revealed(self._texts, token, step, probabilities[place]))
        self._note(ids, now)

    def unmasking(self, sequence: Tensor | None = None) -> Unmasking:
        """Return what was noted.

        Args:
            sequence: (L,) long, the row as it was returned; what a stop string cut off is left out.

        Raises:
            ValueError: when no pass was noted.
        """
        if not self._frames:
            raise ValueError(
                "No pass was made, so there is nothing to show; does the text hold a mask, or name "
                "how many tokens are new?"
            )
        kept = self._kept()
        if sequence is not None:
            kept = kept[: sum(i not in self._texts.left_out for i in sequence.tolist())]
        frames = [tuple(frame[place] for place in kept) for frame in self._frames]
        if all(place.probability in (None, 1.0) for frame in frames for place in frame):
            # nobody asked for them: `generate` leaves zeros, whose exponentials are ones
            frames = [tuple(p._replace(probability=None) for p in frame) for frame in frames]
        return Unmasking(_without_repeats(frames))

    def _note(self, ids: list[int], frame: list[Shown]) -> None:
        self._ids.append(ids)
        self._frames.append(frame)
        if self._on_frame is not None:
            self._on_frame(tuple(frame[place] for place in self._kept()))

    def _kept(self) -> list[int]:
        """Places that are text: no special token, and none behind an end of text."""
        kept, ended = [], False
        for place, (token, shown) in enumerate(zip(self._ids[-1], self._frames[-1], strict=True)):
            special = shown.text is not None and token in self._texts.left_out
            ended |= special and self._tail[place]
            if not special and not (ended and self._tail[place]):
                kept.append(place)
        return kept


def record_unmasking(
    model: "MaskGitForMaskedLM",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    joined: bool = False,
    on_frame: Callable[[Frame], None] | None = None,
    **options: Any,
) -> Unmasking:
    """Let a generator write a text, and return how it came about.

    Args:
        model: writes.
        tokenizer: its own.
        joined: write no space between tokens, as in proteins and molecules.
        on_frame: called with each frame as soon as it is there.
        **options: of `generate`, for one row.

    Raises:
        ValueError: as `generate`, and where there is nothing to fill.
    """
    recorder = UnmaskingRecorder(tokenizer, joined=joined, on_frame=on_frame)
    written: Any = model.generate(
        **options, tokenizer=tokenizer, return_dict_in_generate=True, callback_on_step_end=recorder
    )
    return recorder.unmasking(written.sequences[0])


def _revealed(texts: TokenTexts, token: int, step: int, log_probability: float) -> Shown:
    if step < 0:
        return Shown(*texts.of(token))
    return Shown(*texts.of(token), step, math.exp(log_probability))


def _by_steps(places: Sequence[Shown], num_passes: int) -> Unmasking:
    """Make the frames of places that hold their last token from the pass that revealed it on."""
    return Unmasking(
        tuple(
            tuple(_MASKED if place.step > step else place for place in places)
            for step in range(-1, num_passes)
        )
    )


def _without_repeats(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """Leave out frames at the end that repeat: the row was finished, and others went on."""
    last = len(frames)
    while last > 1 and frames[last - 1] == frames[last - 2]:
        last -= 1
    return tuple(frames[:last])
