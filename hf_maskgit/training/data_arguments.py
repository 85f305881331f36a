"""Options of the training script that say what is learned from, and what it is judged by."""

from dataclasses import dataclass
from typing import Any

from ..core.unknown_tokens import Tolerance, checked_limit
from .declaring import option_of
from .framing import PACKINGS, TOO_LONG, check_framing
from .mixtures import FIRST_EXHAUSTED, Stop, check_weights
from .recipes import check_least, option, required
from .tokenising import Form


@dataclass
class DataArguments:
    """What it learns from, and what it is judged by."""

    dataset: list[str] = required(
        "Texts: a name on the Hub, a folder written by save_to_disk, a text (one text per line), "
        "JSON, CSV, TSV or Parquet file, compressed or not, or a folder of such files; "
        "'part-*.txt' stands for several files. Several names are a mixture."
    )
    dataset_probs: list[float] | None = option(
        None,
        "Weight of each of several data sets, in texts, relative to the others: '3 1' draws three "
        "of four from the first. Default: every text of all of them once.",
    )
    dataset_stop: Stop = option(
        FIRST_EXHAUSTED,
        "When an epoch of a mixture with `dataset_probs` ends: as the first of its data sets has "
        "given all its texts, or as every one has; who ends sooner begins again.",
    )
    dataset_config: list[str] | None = option(
        None, "Configuration of a data set of the Hub; of several data sets one each."
    )
    train_split: str = option("train", "Split to learn from; slices such as 'train[:10%]' work.")
    streaming: bool = option(
        False,
        "Read the texts as they are wanted, instead of loading and tokenising all of them first; "
        "needs `max_steps`.",
    )
    stream_lanes: int = option(
        8,
        "Lanes that a stream is dealt into: a multiple of the number of processes that divides the "
        "examples of an update. A run keeps its number.",
    )
    shuffle_buffer: int = option(1000, "Texts of a lane of a stream that are shuffled together.")
    eval_dataset: str | None = option(
        None,
        "Other data set to evaluate on, given like `dataset`; split `eval_split`, else 'train'.",
    )
    eval_split: str | None = option(None, "Split to evaluate on.")
    validation_fraction: float | None = option(
        None, "Share of the training texts, between 0 and 1, to hold out and evaluate on instead."
    )
    eval_examples: int = option(
        512, "Held-out examples to evaluate on, spread evenly; the same ones every time."
    )
    text_column: str = option("text", "Column that holds the texts.")
    prompt_column: str | None = option(
        None,
        "Column of what is given, never masked, where rows are prompts with completions; beside "
        "`ids_column` a column of lists of ids, such as the class of an image.",
    )
    completion_column: str | None = option(None, "Column of what is learned behind the prompt.")
    messages_column: str | None = option(
        None,
        "Column of conversations, lists of {'role': ..., 'content': ...}, read by the tokenizer's "
        "chat template: what the assistant says is learned, all else is given.",
    )
    ids_column: str | None = option(
        None,
        "Column of lists of token ids, such as pixels or notes, which need no tokenizer; "
        "`vocab_size` says how many ids there are.",
    )
    vocab_size: int | None = option(
        None, "Ids of `ids_column` lie in 0..vocab_size-1; mask and padding come behind them."
    )
    max_length: int = option(512, "Longest example, in tokens, special tokens included.")
    too_long: str = option(
        "cut",
        "What becomes of a text that does not fit into `max_length`: 'cut' off and counted, "
        "'split' into several examples, or 'refuse'.",
        choices=list(TOO_LONG),
    )
    pack: str = option(
        "no",
        "How blocks of `max_length` tokens are filled: 'no', one example per text; 'joined', the "
        "texts one after another, cut wherever a block is full, and attending to each other "
        "(--pack alone means this); 'separate', whole texts side by side, each of which sees "
        "itself alone, where the encoder allows it.",
        choices=list(PACKINGS),
        nargs="?",
        const="joined",
    )
    end_fill: int | None = option(
        None,
        "Fill texts with ends of text up to this many tokens, special tokens included (at most "
        "`max_length`), so that the model learns where a text ends and generate(num_tokens="
        "'window') ends by itself.",
    )
    drop_empty_texts: bool = option(
        False, "Drop texts without any token, and nulls, instead of refusing them."
    )
    max_unknown_share: float = option_of(Tolerance, "max_unknown_share")
    num_proc: int | None = option(None, "Processes that tokenise. Default: only this one.")
    num_workers: int = option(
        0, "Processes per device that prepare batches; 0 uses the training one."
    )

    def __post_init__(self) -> None:
        """Check ranges and what excludes each other."""
        least = {"eval_examples": 1, "max_length": 1, "num_proc": 1, "vocab_size": 2}
        check_least(self, **least, num_workers=0, stream_lanes=1, shuffle_buffer=1)
        checked_limit(self.max_unknown_share)
        if isinstance(self.dataset, str):  # of a program that has one
            self.dataset = [self.dataset]
        if isinstance(self.dataset_config, str):
            self.dataset_config = [self.dataset_config]
        if isinstance(self.pack, bool):
            self.pack = "joined" if self.pack else "no"
        check_weights(self.dataset_probs, len(self.dataset))
        check_framing(self.form, self.too_long, self.pack)
        if self.end_fill is not None and (self.pack != "no" or self.end_fill > self.max_length):
            raise ValueError(
                "`end_fill` fills examples of one text each, of `max_length` tokens at most: got "
                f"end_fill={self.end_fill} with max_length={self.max_length} and pack={self.pack}. "
                "Packed texts are closed by an end of text already."
            )
        self._check_sources()
        self._check_held_out()
        if (self.ids_column is None) != (self.vocab_size is None):
            raise ValueError(
                "`ids_column` names a column of ids and `vocab_size` says how many ids there are; "
                "give both or neither."
            )

    @property
    def form(self) -> Form:
        """What a row holds."""
        return Form(
            self.text_column,
            self.prompt_column,
            self.completion_column,
            self.messages_column,
            self.ids_column,
        )

    @property
    def sources(self) -> list[tuple[str, str | None]]:
        """Name and configuration of each data set."""
        configs: list[Any] = self.dataset_config or [None for _ in self.dataset]
        return list(zip(self.dataset, configs, strict=True))

    def _check_sources(self) -> None:
        if self.dataset_config is not None and len(self.dataset_config) != len(self.dataset):
            raise ValueError(
                f"`dataset_config` names {len(self.dataset_config)} configurations for "
                f"{len(self.dataset)} data sets; give one for each (a local file takes any word), "
                "or none."
            )
        if self.dataset_probs is not None and len(self.dataset) == 1:
            raise ValueError(
                "`dataset_probs` mixes several data sets, and `dataset` names one; name more, or "
                "leave it out."
            )
        if self.dataset_stop != FIRST_EXHAUSTED and (self.dataset_probs is None or self.streaming):
            raise ValueError(
                f"dataset_stop={self.dataset_stop!r} says when an epoch of a mixture with "
                "`dataset_probs` ends, and there is none here (a stream has no epochs); leave it "
                "out."
            )
        if self.streaming and len(self.dataset) > 1 and self.dataset_probs is None:
            raise ValueError(
                "Nobody knows how many texts a stream has, so a mixture of streams needs "
                "`dataset_probs`."
            )

    def _check_held_out(self) -> None:
        if self.validation_fraction is None:
            return
        if self.eval_split or self.eval_dataset:
            raise ValueError(
                "`validation_fraction` holds out training texts; `eval_split` and `eval_dataset` "
                "name others. Give one or the other."
            )
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"`validation_fraction` must lie between 0 and 1, got {self.validation_fraction}."
            )
        if self.streaming:
            raise ValueError(
                "`validation_fraction` takes a share of all texts, and nobody knows how many a "
                "stream has. Name held-out texts with `eval_split` or `eval_dataset`."
            )
