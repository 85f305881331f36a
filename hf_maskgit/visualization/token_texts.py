"""What a single token reads like in a text: its letters, and whether a space stands before it."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANCHOR = "a"


class TokenText(NamedTuple):
    """The text of a token without the space before it, and whether there is none."""

    text: str
    joined: bool


class TokenTexts:
    """Reads the tokens of a tokenizer one by one, each behind a word.

    Only behind a word does a token tell whether it begins another. A token that is a part of a
    character reads as the replacement character, U+FFFD.

    Args:
        tokenizer: any.
        joined: write no space between tokens, as in proteins and molecules.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", joined: bool = False) -> None:
        self._tokenizer, self._joined = tokenizer, joined
        self._known: dict[int, TokenText] = {}
        # An unknown word is part of a text, if one that nobody can read.
        self.left_out = frozenset(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        ids = tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"]
        self._anchor = [i for i in ids if i not in self.left_out][-1:]
        self._before = self._decode([])

    def of(self, token: int) -> TokenText:
        """Return what a token reads like."""
        if token not in self._known:
            self._known[token] = self._read(token)
        return self._known[token]

    def _read(self, token: int) -> TokenText:
        both = self._decode([token])
        if not both.startswith(self._before):  # the tokenizer spells the two together
            return TokenText(str(self._tokenizer.convert_ids_to_tokens(token)), self._joined)
        rest = both[len(self._before) :]
        text = rest.lstrip(" ")
        if not text:  # a token of spaces alone, or one without letters
            return TokenText(rest, True)
        return TokenText(text, self._joined or not self._before or text == rest)

    def _decode(self, ids: list[int]) -> str:
        decoded = self._tokenizer.decode(self._anchor + ids, clean_up_tokenization_spaces=False)
        return str(decoded)
