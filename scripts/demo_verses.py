"""What the demonstration shows of a writer of verses: its bound, filled verses, texts, a prompt."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import NelboOutput, text_statistics
from hf_maskgit.hub.card import own_samples
from hf_maskgit.training.examples import evenly_spaced
from hf_maskgit.visualization import print_unmasking, save_unmasking, unmasking_of

from .telling import say

PROMPT = "And the LORD spake unto Moses, saying,"
NEW_TOKENS = 24  # about as many as complete a verse
READABLE = range(14, 25)  # tokens of a verse that is easily read, its frame included
FILLED = 3  # of them
WHAT_NATS_ARE = (
    "How surprised a model is by each token (a word or a piece of one) of verses that it has not "
    "seen, in nats; less is better. Whoever is as unsure as among n equally likely tokens has "
    "log n nats: that n stands beside. Of a diffusion model an upper bound is known: the truth is "
    "at most that. A unigram model only knows how frequent each token is."
)


def print_bounds(unigram: float, before: NelboOutput, after: NelboOutput | None = None) -> None:
    """Print the bounds beside what token frequencies alone achieve, all on the same tokens."""
    print(f"{'':24}nats per held-out token   as unsure as among")
    print(f"{'unigram model':24}{unigram:8.3f}{math.exp(unigram):34,.0f} tokens")
    for name, bound in (("bound before training", before), ("bound after training", after)):
        if bound is not None:
            nats = bound.nats_per_token
            print(
                f"{name:24}{nats:8.3f} +- {bound.nats_per_token_std_error:.3f}"
                f"{math.exp(nats):25,.0f} tokens   {abs(1 - nats / unigram):.1%} "
                f"{'below' if nats < unigram else 'above'} unigram"
            )


def short_verses(held_out: Dataset) -> list[list[int]]:
    """Return a few held-out verses that are easily read, as ids with their frame."""
    short = [ids for ids in held_out["input_ids"] if len(ids) in READABLE]
    return [short[(2 * i + 1) * len(short) // (2 * FILLED)] for i in range(FILLED)]


def with_holes(verse: Sequence[int], mask: int) -> torch.Tensor:
    """Hide every third token of a verse; one token frames it on each side. (1, L) long."""
    masked = torch.tensor([verse])
    masked[:, 3:-1:3] = mask
    return masked


def fill_verses(
    model: MaskGitForMaskedLM, tokenizer: PreTrainedTokenizerBase, held_out: Dataset
) -> list[int]:
    """Fill holes of verses that were not trained on; returns how many as in the book, of how many.

    What is likeliest is taken, the surest first.
    """
    right = holes = 0
    for verse in short_verses(held_out):
        masked = with_holes(verse, int(tokenizer.mask_token_id))
        filled = model.generate(masked, do_sample=False)
        hidden = masked == tokenizer.mask_token_id
        right += int((filled[hidden] == torch.tensor([verse])[hidden]).sum())
        holes += int(hidden.sum())
        say("With holes:", *tokenizer.batch_decode(masked[:, 1:-1]))
        say("Filled:", *decode(tokenizer, filled))
        say("As it stands in the book:", *decode(tokenizer, [verse]), "")
    say(f"{right} of {holes} tokens are those of the book; others may fit as well.")
    return [right, holes]


def show_filling(
    model: MaskGitForMaskedLM, tokenizer: PreTrainedTokenizerBase, held_out: Dataset, path: Path
) -> None:
    """Print how a verse was filled, pass by pass, and save it as a picture."""
    masked = with_holes(short_verses(held_out)[0], int(tokenizer.mask_token_id))
    lines = unmasking_of(model, tokenizer, input_ids=masked, do_sample=False, steps=6)
    say("", "The first of them, pass by pass:")
    print_unmasking(lines)
    save_unmasking(lines, path, "A verse with holes, filled pass by pass")


def write_texts(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Dataset,
    number: int,
    seed: int,
) -> tuple[Sequence[str], dict[str, list[float]]]:
    """Write texts as long as verses, and compare their variety; returns both."""
    lengths = [len(ids) for ids in evenly_spaced(held_out, number)["input_ids"]]
    texts = own_samples(model, tokenizer, lengths, seed)
    say(*texts)
    return texts, compare_variety(texts, decode(tokenizer, list(held_out["input_ids"])))


def decode(tokenizer: PreTrainedTokenizerBase, sequences: Any) -> list[str]:
    """Turn rows of ids into texts without special tokens."""
    return list(tokenizer.batch_decode(sequences, skip_special_tokens=True))


def compare_variety(texts: Sequence[str], verses: Sequence[str]) -> dict[str, list[float]]:
    """Print how much texts and verses repeat themselves; returns [texts, verses] of each number."""
    written, real = text_statistics(texts), text_statistics(verses)
    print(f"{'':32}repeated bigrams   distinct words")
    for name, found in ((f"{len(texts)} texts", written), (f"{len(verses)} held-out verses", real)):
        print(f"{name:32}{found.repeated_bigrams:16.3f}{found.distinct_words:17.3f}")
    return {
        "repeated_bigrams": [written.repeated_bigrams, real.repeated_bigrams],
        "distinct_words": [written.distinct_words, real.distinct_words],
    }


def continue_prompt(writer: Any, seed: int) -> None:
    """Let the pipeline of transformers continue a prompt."""
    (continued,) = writer(PROMPT, max_new_tokens=NEW_TOKENS, seed=seed, return_full_text=False)
    say("A prompt:", PROMPT)
    say("What follows:", continued["generated_text"])
