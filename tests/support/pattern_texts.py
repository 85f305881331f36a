"""What a pattern speaks of, told from the tokenizer alone: `decode`, and a rule for residues."""

from transformers import PreTrainedTokenizerBase


def text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of a span: decoded, less one space before it; of residues and atoms, less all.

    Tokens of these are single letters or the signs of SMILES, and no tokenizer of words has "=" in
    a text without a space before it; here it is told from the names in the vocabulary.
    """
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    vocabulary = tokenizer.get_vocab()
    if {"Br", "Cl"} <= vocabulary.keys() or {"<null_1>"} <= vocabulary.keys():
        return "".join(text.split())
    return text.removeprefix(" ")
