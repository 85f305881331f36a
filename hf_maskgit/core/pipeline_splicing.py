"""The text of filled tokens, set between what the user typed.

Decoding the whole text would spell the user's own words anew: lower case, spaces around every
punctuation mark, nothing in place of an unknown word. So what was typed stays as it was typed, and
only the tokens that the model wrote are decoded, together with what stands before them: that tells
whether they begin a new word or continue one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

_SPACE_IN_WORDS = re.compile(r"(?<=\w)\s+(?=\w)")
_CONTEXT = 32  # tokens decoded before a filled one: enough to tell how it joins on


@dataclass(frozen=True)
class Piece:
    """A stretch of text.

    Attributes:
        ids: its tokens; special ones are left out of the text.
        typed: what the user typed for it, spaces included; None where the model wrote it.
        apart: it is a text of its own, to which what stands around it is never joined, nor parted
            from it, but as typed.
        spaced: whether the spaces that decoding puts between any two tokens belong to it; None
            where what is typed around it must tell.
    """

    ids: Sequence[int]
    typed: str | None = None
    apart: bool = False
    spaced: bool | None = None


def framing_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Special tokens that are no part of a text; an unknown word is part of it."""
    return written_specials(tokenizer) - {tokenizer.unk_token_id}


def written_specials(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Special tokens that are no part of what a model wrote.

    It writes the unknown token only where that also ends or pads a text, as in GPT-2.
    """
    return frozenset(tokenizer.all_special_ids)


def splice(
    tokenizer: PreTrainedTokenizerBase,
    pieces: Sequence[Piece],
    *,
    skip_special_tokens: bool = True,
) -> tuple[str, list[str]]:
    """Put typed and written pieces together.

    Where two pieces meet, the spaces that were typed stay; only a written piece that continues a
    word is joined to it, whatever was typed between. Without typed spaces there is one only where
    the tokenizer would read the joined text differently.

    Args:
        tokenizer: of the ids.
        pieces: in the order of the text; no two typed ones in a row.
        skip_special_tokens: leave special tokens out of written pieces; typed ones stay as typed.

    Returns:
        The text, and the text of each written piece without the spaces around it.
    """
    # `gap` are the spaces between what is in `text` already and what comes next.
    framing, never_shown = framing_ids(tokenizer), written_specials(tokenizer)
    text, gap, written = "", "", []
    context: list[int] = []
    held: list[int] = []  # tokens without text of their own: spaces, to be read with what follows
    last: tuple[str, list[int]] = ("", [])
    apart = False
    typed = "".join(piece.typed for piece in pieces if piece.typed is not None)
    typed_ids = [i for piece in pieces if piece.typed is not None for i in piece.ids]
    runs_on = _runs_on(tokenizer, typed, [i for i in typed_ids if i not in framing])
    for piece in pieces:
        drops = frozenset[int]()
        if piece.typed is not None or skip_special_tokens:
            drops = never_shown if piece.typed is None else framing
        ids = [i for i in piece.ids if i not in drops]
        space, core = _decode_behind(tokenizer, context, held + ids)
        if piece.typed is not None:
            core = piece.typed.strip()
            gap += piece.typed[: len(piece.typed) - len(piece.typed.lstrip())]
        else:
            if piece.spaced is False:
                core = "".join(core.split())
            elif runs_on and piece.spaced is None:
                core = _without_spaces(tokenizer, core, ids)
            written.append(core)
        if not core:
            held += ids
            continue
        as_typed, apart = apart or piece.apart, piece.apart
        if as_typed:  # a format says what it holds, so that nothing may be put to it or taken
            pass
        elif text and piece.typed is None and space == "":  # the model goes on with a word
            gap = ""
        elif text and space and not gap:
            # Many tokenizers see a space before any text behind a mask, also before a comma.
            within_word = text[-1].isalnum() and core[0].isalnum()
            if piece.typed is None or within_word:
                gap = "" if _reads_joined(tokenizer, last, (core, held + ids)) else space
        text += gap + core
        context, held = context + held + ids, []
        gap = "" if piece.typed is None else piece.typed[len(piece.typed.rstrip()) :]
        last = (core, ids)
    return text + gap, written


def continuation(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    prompt_ids: Sequence[int],
    new_ids: Sequence[int],
    *,
    skip_special_tokens: bool = True,
) -> str:
    """Return what follows a prompt, with the space between the two where one belongs.

    Args:
        tokenizer: of the ids.
        prompt: as typed; it stays so, and what it ends in counts.
        prompt_ids: its tokens.
        new_ids: what the model wrote behind them.
        skip_special_tokens: leave special tokens out of the new text.
    """
    framing = framing_ids(tokenizer)
    drops = written_specials(tokenizer) if skip_special_tokens else frozenset[int]()
    before = [i for i in prompt_ids if i not in framing]
    ids = [i for i in new_ids if i not in drops]
    space, core = _decode_behind(tokenizer, before, ids)
    runs_on = _runs_on(tokenizer, prompt, before)
    if runs_on:
        core = _without_spaces(tokenizer, core, ids)
    if not core or not space or not prompt or prompt[-1].isspace():
        return core
    # "word (" reads like "word(" and looks better, so equal reading is not enough.
    joined = runs_on and _reads_joined(tokenizer, (prompt, before), (core, ids))
    return core if joined else space + core


def _decode_behind(
    tokenizer: PreTrainedTokenizerBase, context: Sequence[int], ids: Sequence[int]
) -> tuple[str | None, str]:
    """Decode ids as they read behind others: the space that separates them, and their text.

    The space is None where the tokenizer does not tell.
    """
    # Alone, a token's text does not tell whether a space belongs before it.
    behind = list(context[-_CONTEXT:])
    # A space that is a token of its own separates too, and is no beginning of the next word.
    before = _decode(tokenizer, behind).rstrip()
    both = _decode(tokenizer, [*behind, *ids])
    if not before or not both.startswith(before):
        return None, _decode(tokenizer, ids).strip()
    rest = both[len(before) :]
    core = rest.lstrip()
    return rest[: len(rest) - len(core)], core


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _runs_on(tokenizer: PreTrainedTokenizerBase, typed: str, ids: Sequence[int]) -> bool:
    """Tell whether a text is typed without the spaces that its tokenizer would write.

    Proteins and molecules are: one token is one residue or atom, and only decoding puts a space
    between two. A text too short to tell may.
    """
    typed, decoded = typed.strip(), _decode(tokenizer, ids).strip()
    if not any(c.isspace() for c in typed):
        return len(decoded) <= 1 or any(c.isspace() for c in decoded)
    # A comma or a bracket stands apart in many decoded texts, two halves of a word do not.
    return len(_SPACE_IN_WORDS.findall(typed)) < len(_SPACE_IN_WORDS.findall(decoded))


def _without_spaces(tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int]) -> str:
    """Take the spaces out of a text, if it reads as the same tokens then."""
    joined = "".join(text.split())
    return joined if _reads_joined(tokenizer, ("", []), (joined, ids)) else text


def _reads_joined(
    tokenizer: PreTrainedTokenizerBase, left: tuple[str, list[int]], right: tuple[str, list[int]]
) -> bool:
    """Tell whether the tokenizer reads two texts without a space between as these same tokens."""
    read = tokenizer(left[0] + right[0], add_special_tokens=False)["input_ids"]
    return bool(read == left[1] + right[1])
