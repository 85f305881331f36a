"""`Pattern`: what a text must look like, compiled for one tokenizer."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

from transformers import PreTrainedTokenizerBase

from ..core.argument_checks import check_is_tokenizer
from ..core.pattern_automaton import of_elements
from ..core.token_pattern import TokenPattern, fingerprint
from .compiling import ByteAutomaton, bytes_of_choices, bytes_of_regex, over_tokens, regex_of_schema
from .prosite import elements_of
from .smiles import smiles_automaton
from .token_texts import token_texts


class Pattern(TokenPattern):
    """What the masks of a text, with the known tokens between them, must look like.

    It speaks about the text of the span from a row's first mask to its last:
    `tokenizer.decode(ids, clean_up_tokenization_spaces=False)`, whole, without the one space with
    which it may begin. Where decoding puts a space between any two tokens, as between residues and
    atoms, these spaces are left out. Special tokens stand in no pattern.

    `save(path)` keeps one as a file, `.safetensors` or JSON, and `Pattern.load(path)` reads it;
    `shortest`, `longest` and `lengths(most)` tell how many tokens it takes, `matches(ids)` whether
    a row belongs to it.
    """

    @classmethod
    def from_regex(cls, regex: str, tokenizer: PreTrainedTokenizerBase) -> Self:
        r"""Compile a regular expression, such as `\d{4}-\d{2}-\d{2}`, that a text matches wholly.

        Args:
            regex: in the syntax of Rust's regex crate, nearly that of `re`; without anchors, groups
                that are referred to, and looking around.
            tokenizer: the model's.

        Raises:
            ImportError: when the package outlines-core is not installed.
            ValueError: for an expression that cannot be compiled, is met by no text, or makes too
                large an automaton.
        """
        _check_is_text("regex", regex)
        check_is_tokenizer(tokenizer)
        return cls._compiled(bytes_of_regex(regex), tokenizer, regex)

    @classmethod
    def from_json_schema(
        cls, schema: str | Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
    ) -> Self:
        """Compile a JSON schema: the texts are JSON that it describes.

        Args:
            schema: as a dict or as JSON text.
            tokenizer: the model's.

        Raises:
            ImportError: when the package outlines-core is not installed.
            ValueError: for a schema that cannot be compiled, that says what a pattern cannot hold
                to, such as `minimum`, or that makes too large an automaton.
        """
        check_is_tokenizer(tokenizer)
        if not isinstance(schema, str | Mapping):
            raise TypeError(f"`schema` must be a dict or JSON text, got {type(schema).__name__}.")
        try:
            text = schema if isinstance(schema, str) else json.dumps(schema)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"`schema` holds something that is no JSON: {error}.") from error
        return cls._compiled(bytes_of_regex(regex_of_schema(text), is_json=True), tokenizer, text)

    @classmethod
    def from_choices(cls, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Self:
        """Compile a list of texts, of which one is to stand there, split into tokens in any way.

        Args:
            texts: one or more.
            tokenizer: the model's.

        Raises:
            ValueError: for something else than texts, or texts that the vocabulary cannot write.
        """
        check_is_tokenizer(tokenizer)
        of_texts = not isinstance(texts, str) and isinstance(texts, Sequence) and len(texts)
        if not of_texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"`texts` must be a list of one or more texts, got {texts!r}.")
        return cls._compiled(bytes_of_choices(texts), tokenizer, " | ".join(texts))

    @classmethod
    def from_prosite(cls, motif: str, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Compile a motif of proteins, such as `C-x(2,4)-C-x(3)-[LIVMFYWC]`.

        The motif is the whole span; `x*` before or behind it leaves room for other residues.

        Args:
            motif: in PROSITE's notation, see `hf_maskgit.patterns.prosite`.
            tokenizer: the model's, with a token for each residue.

        Raises:
            ValueError: for a motif that is none, or residues that the tokenizer lacks.
        """
        _check_is_text("motif", motif)
        check_is_tokenizer(tokenizer)
        texts = token_texts(tokenizer)
        letters = {i: (text or b"").decode(errors="replace") for i, text in enumerate(texts.rest)}
        residues = {t: i for i, t in letters.items() if len(t) == 1 and t.isascii() and t.isupper()}
        automaton = of_elements(elements_of(motif, residues), len(texts.first))
        marks = fingerprint(tokenizer), tokenizer.mask_token_id, texts.spaced
        return cls(automaton, motif, *marks)

    @classmethod
    def from_smiles(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        depth: int = 3,
        rings: Collection[int] = (1, 2, 3, 4),
        attached: bool = False,
        valences: bool = False,
    ) -> Self:
        """Make the pattern of SMILES whose bonds, branches and rings are well formed.

        What of SMILES it holds and what no pattern can: `hf_maskgit.patterns.smiles`.

        Args:
            tokenizer: the model's, with a token for each atom, bond, bracket and ring number.
            depth: branches within branches, at most.
            rings: numbers that rings may have, from 1 to 9; the lowest free one is taken. Beside
                known text leave out those that are open there.
            attached: for what stands behind an atom, so that it may begin with a bond.
            valences: let no atom have more bonds than its valence, in SMILES without aromatic atoms
                (Kekulé's form): nearly all of these are molecules. That takes some thousand states.

        Raises:
            ValueError: for other numbers, a vocabulary without atoms, or too many states.
        """
        check_is_tokenizer(tokenizer)
        texts = token_texts(tokenizer)
        atoms = [None if text is None else text.decode(errors="replace") for text in texts.rest]
        automaton = smiles_automaton(atoms, depth, rings, attached, valences)
        source = f"SMILES, {depth} branches deep, rings {', '.join(map(str, rings))}"
        source += ", valences" if valences else ""
        marks = fingerprint(tokenizer), tokenizer.mask_token_id, texts.spaced
        return cls(automaton, source, *marks)

    @classmethod
    def _compiled(
        cls, language: ByteAutomaton, tokenizer: PreTrainedTokenizerBase, source: str
    ) -> Self:
        texts = token_texts(tokenizer)
        marks = fingerprint(tokenizer), tokenizer.mask_token_id, texts.spaced
        return cls(over_tokens(language, texts), source, *marks)


def _check_is_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be a text, got {type(value).__name__}.")
