"""Tokenizers of the kinds that encoders have, trained on the spot on a few sentences.

They differ in what text generation and infilling trip over: whether tokens hold their spaces, what
stands for the middle of a word, whether the mask takes the space before it.
"""

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM
from hf_maskgit.core.special_tokens import tokenizer_fields
from tests.support.tiny import BERT_SPECIALS, ROBERTA_SPECIALS, bert_config, protein_tokenizer

SENTENCES = [
    "And God said, Let there be light: and there was light.",
    "The cat sat on the mat, playing (as cats do) with a ball of wool!",
    "Is it the players' ball? It isn't; the playground was closed at 10:45 yesterday...",
    "Überraschung: naïve readers re-read co-operative café signs.",
]


def _wrap(backend: Tokenizer, specials: dict[str, str]) -> PreTrainedTokenizerFast:
    first, last = specials["cls"], specials["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B {last}",
        special_tokens=[(name, backend.token_to_id(name)) for name in (first, last)],
    )
    names = {f"{role}_token": token for role, token in specials.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def _special(specials: dict[str, str], takes_space: bool) -> list[str | AddedToken]:
    """RoBERTa and its kin have their mask take the space before it, BERT does not."""
    return [
        AddedToken(token, lstrip=True, special=True) if token == "<mask>" and takes_space else token
        for token in dict.fromkeys(specials.values())
    ]


def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """BERT's: lower case, no spaces in tokens, ## before the rest of a word."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120,
        special_tokens=_special(BERT_SPECIALS, takes_space=False),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return _wrap(backend, BERT_SPECIALS)


def byte_level_tokenizer(takes_space: bool = True) -> PreTrainedTokenizerFast:
    """RoBERTa's: bytes, a space belongs to the word behind it.

    Args:
        takes_space: whether the mask swallows the space before it, as RoBERTa's does.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=_special(ROBERTA_SPECIALS, takes_space),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return _wrap(backend, ROBERTA_SPECIALS)


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """XLM-RoBERTa's: a mark in place of the space before a word."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=_special(ROBERTA_SPECIALS, takes_space=True),
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return _wrap(backend, ROBERTA_SPECIALS)


def molecule_tokenizer() -> PreTrainedTokenizerFast:
    """Of chemistry: an atom, a bond or a bracket is a token, and decoding puts spaces between."""
    pattern = r"Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|=|#|-|[0-9]"
    symbols = ["Br", "Cl", *"BCNOSPFIbcnosp()=#-123456789"]
    names = [*BERT_SPECIALS.values(), *symbols]
    backend = Tokenizer(
        models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    return _wrap(backend, BERT_SPECIALS)


TOKENIZERS = {
    "wordpiece": wordpiece_tokenizer,
    "byte-level": byte_level_tokenizer,
    "unigram": unigram_tokenizer,
    "protein": protein_tokenizer,
    "molecule": molecule_tokenizer,
}


def model_for(tokenizer: PreTrainedTokenizerBase) -> MaskGitForMaskedLM:
    """A small BERT over the tokenizer's vocabulary, with random weights."""
    encoder = bert_config(
        vocab_size=len(tokenizer), max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id
    )
    return MaskGitForMaskedLM(
        MaskGitConfig(text_config=encoder, **tokenizer_fields(tokenizer))
    ).eval()
