"""From options to examples: sources are loaded, tokenised, mixed, framed, and reported on."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .arguments import DataArguments, ModelArguments, TrainArguments
from .batching import check_not_grouped
from .building import load_tokenizer
from .end_fill import fill_and_tell, filler_of
from .examples import (
    DataReport,
    check_max_length,
    evenly_spaced,
    frame_texts,
    hold_out,
)
from .framing import Framing, framing_of
from .ids import ids_tokenizer
from .mixtures import mixed
from .sources import MissingSplitError, load_texts, place_of_row
from .streams import StreamedExamples, StreamSource
from .tokenising import FaultyRowError, Tokenising, tokenize_texts
from .updates import total_updates

logger = logging.getLogger(__name__)


class Data(NamedTuple):
    """Prepared examples, and what became of the texts.

    Attributes:
        train: examples to learn from, a stream of them where that is wanted.
        held_out: those to evaluate on, where texts for it are named.
        train_report: of all texts to learn from; None of a stream, which nobody has seen whole.
        held_out_report: of all held-out texts.
    """

    train: Dataset | StreamedExamples
    held_out: Dataset | None
    train_report: DataReport | None
    held_out_report: DataReport | None


def check_together(
    model_options: ModelArguments, data_options: DataArguments, options: TrainArguments
) -> None:
    """Refuse options that do not go together, before anything is loaded.

    Raises:
        ValueError: naming them.
    """
    if data_options.ids_column is not None and model_options.tokenizer is not None:
        raise ValueError(
            "`ids_column` holds token ids, which need no tokenizer; leave `tokenizer` out, or name "
            "a column of texts with `text_column`."
        )
    names_vocabulary = model_options.tokenizer or data_options.ids_column
    if model_options.from_scratch and not names_vocabulary:
        raise ValueError(
            "`from_scratch` builds a new encoder and needs `tokenizer`, which decides its "
            "vocabulary; data of ids needs `ids_column` and `vocab_size` instead."
        )
    if options.lora_r and model_options.from_scratch:
        raise ValueError(
            "`from_scratch` begins with random weights, and `lora_r` would leave them so; leave "
            "one of the two out."
        )
    if data_options.streaming:
        total_updates(options.num_train_epochs, None, options.max_steps)
        check_not_grouped(options.group_by_length)


def tokenizer_for(
    model_options: ModelArguments, data_options: DataArguments
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the texts; ids get one whose words are numbers."""
    if data_options.vocab_size is not None:
        return ids_tokenizer(data_options.vocab_size)
    return load_tokenizer(model_options)


def load_examples(
    options: DataArguments, tokenizer: PreTrainedTokenizerBase, max_positions: int | None, seed: int
) -> tuple[Dataset | StreamedExamples, Dataset | None]:
    """Prepare the examples to learn from and, where held-out texts are named, those to evaluate on.

    Raises:
        ValueError: when `max_length` is beyond the encoder's positions, and for every fault of the
            data that loading and preparing it name.
    """
    data = load_data(options, tokenizer, max_positions, seed)
    return data.train, data.held_out


def load_data(
    options: DataArguments, tokenizer: PreTrainedTokenizerBase, max_positions: int | None, seed: int
) -> Data:
    """Prepare examples as `load_examples` does, which see, and report on the texts."""
    check_max_length(options.max_length, max_positions)
    framing = framing_of(
        tokenizer,
        options.form,
        max_length=options.max_length,
        too_long=options.too_long,
        pack=options.pack,
    )
    # Held-out texts are measured one by one, as every measure takes them.
    alone = replace(framing, pack="no") if framing.pack == "separate" else framing
    if options.streaming:
        held_out, held_out_report = _held_out(options, tokenizer, alone)
        return Data(_stream(options, tokenizer, framing, seed), held_out, None, held_out_report)
    sources = [
        _tokenize(name, config, options.train_split, options, tokenizer)
        for name, config in options.sources
    ]
    if options.validation_fraction is not None:
        # Split only now, so that a faulty text was named by its row in the data set, and before
        # texts are mixed, which may take one twice.
        parts = [hold_out(source, options.validation_fraction, seed) for source in sources]
        bodies = [train for train, _ in parts]
        held_out, held_out_report = _evaluated(
            [held for _, held in parts], options, tokenizer, alone
        )
    else:
        bodies = sources
        held_out, held_out_report = _held_out(options, tokenizer, alone)
    train, counts = mixed(bodies, options.dataset_probs, seed, options.dataset_stop)
    examples, report = frame_texts_of(train, options, framing)
    examples = fill_and_tell("Training", examples, tokenizer, options.end_fill)
    if len(bodies) > 1:
        report = replace(report, sources=dict(zip(options.dataset, counts, strict=True)))
    logger.info("Training data: %s", report)
    return Data(examples, held_out, report, held_out_report)


def frame_texts_of(
    bodies: Dataset, options: DataArguments, framing: Framing
) -> tuple[Dataset, DataReport]:
    """Frame texts of the options' data sets; a faulty one is named by file and line."""
    try:
        return frame_texts(bodies, framing)
    except FaultyRowError as error:
        raise _placed(error, options.dataset[0] if len(options.dataset) == 1 else "") from error


def _held_out(
    options: DataArguments, tokenizer: PreTrainedTokenizerBase, framing: Framing
) -> tuple[Dataset | None, DataReport | None]:
    """Prepare the texts that `eval_dataset` or `eval_split` name."""
    if options.eval_dataset is not None:
        split = options.eval_split or "train"
        bodies = [_tokenize(options.eval_dataset, None, split, options, tokenizer)]
    elif options.eval_split is not None:
        try:
            bodies = [
                _tokenize(name, config, options.eval_split, options, tokenizer)
                for name, config in options.sources
            ]
        except MissingSplitError as error:
            if options.streaming:  # of a stream nothing is held out
                raise
            raise ValueError(
                f"{error} Or leave `eval_split` out and hold out a part of the training texts "
                "with `validation_fraction`, say 0.05."
            ) from error
    else:
        advice = "" if options.streaming else ", or set `validation_fraction`"
        logger.warning(
            "No held-out texts: nothing will be evaluated. Name `eval_split` or `eval_dataset`%s.",
            advice,
        )
        return None, None
    return _evaluated(bodies, options, tokenizer, framing)


def _evaluated(
    bodies: Sequence[Dataset],
    options: DataArguments,
    tokenizer: PreTrainedTokenizerBase,
    framing: Framing,
) -> tuple[Dataset, DataReport]:
    whole, _ = mixed(bodies, None, 0)
    held_out, report = frame_texts_of(whole, options, framing)
    logger.info("Held-out data: %s", report)
    held_out = fill_and_tell("Held-out", held_out, tokenizer, options.end_fill)
    return evenly_spaced(held_out, options.eval_examples), report


def _tokenize(
    name: str,
    config: str | None,
    split: str,
    options: DataArguments,
    tokenizer: PreTrainedTokenizerBase,
) -> Dataset:
    texts = load_texts(name, config, split)
    try:
        return tokenize_texts(
            texts,
            tokenizer,
            options.form,
            options.drop_empty_texts,
            options.num_proc,
            options.max_unknown_share,
        )
    except FaultyRowError as error:
        raise _placed(error, name if split == "train" else "") from error


def _placed(error: FaultyRowError, name: str) -> ValueError:
    """Say in which file and line a faulty row stands, where that is known."""
    place = place_of_row(name, error.row) if name and isinstance(error.row, int) else None
    return ValueError(f"{error} It is {place}." if place else str(error))


def _stream(
    options: DataArguments, tokenizer: PreTrainedTokenizerBase, framing: Framing, seed: int
) -> StreamedExamples:
    sources = [
        StreamSource(name, load_texts(name, config, options.train_split, streaming=True))
        for name, config in options.sources
    ]
    return StreamedExamples(
        sources,
        options.dataset_probs,
        Tokenising(tokenizer, options.form, options.drop_empty_texts),
        framing,
        seed=seed,
        num_lanes=options.stream_lanes,
        block_size=options.shuffle_buffer,
        max_unknown_share=options.max_unknown_share,
        fill=None if options.end_fill is None else filler_of(tokenizer, options.end_fill),
    )
