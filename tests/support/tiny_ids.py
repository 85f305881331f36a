"""A tiny generator of ids that need no tokenizer, saved in a folder."""

from pathlib import Path

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.training.ids import ids_tokenizer
from tests.support.tiny import bert_config


def save_generator_of_ids(folder: Path, vocab_size: int, length: int) -> str:
    """Save one with fresh weights, and its tokenizer; return the folder as a word."""
    from transformers import BertForMaskedLM

    tokenizer = ids_tokenizer(vocab_size)
    config = bert_config(
        vocab_size=len(tokenizer),
        max_position_embeddings=length,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = MaskGitForMaskedLM.from_encoder(BertForMaskedLM(config), tokenizer=tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
