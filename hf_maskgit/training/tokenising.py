"""From rows of a data set to bodies: the token ids of each text, with nothing around them.

What a row holds is told by a `Form`: a text, a prompt and its completion, a conversation, or token
ids as they are, of which some may be given. Of a prompt, and of all turns of a conversation but the
assistant's, nothing is ever masked: bodies of these have a column `maskable` beside their ids.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from datasets import Dataset, DatasetDict, IterableDataset
from transformers import PreTrainedTokenizerBase

from ..core.special_tokens import never_emitted, padding_alone, tokenizer_fields
from ..core.text_reader import TextReader
from ..core.unknown_tokens import Reading, check_read, sum_of
from .conversations import ConversationReader

logger = logging.getLogger(__name__)

_ROWS_WITH_EXAMPLES = 10  # texts that are looked through for examples of unknown words
_TEXT_COLUMN = "text"  # where nobody names one
_CONTENT = 2  # of the columns that bodies have: one more, and what was cached before is made anew


class FaultyRowError(ValueError):
    """A row that nothing can be learned from.

    Args:
        sentence: what is wrong with it.
        row: its number in the data set, counted from 0, or what else it is called.
    """

    def __init__(self, sentence: str, row: int | str) -> None:
        super().__init__(sentence, row)
        self.row = row

    def __str__(self) -> str:
        """Give the sentence."""
        return str(self.args[0])


@dataclass(frozen=True)
class Form:
    """Which columns hold what is learned from.

    Attributes:
        text_column: of texts, unless one of the others is named.
        prompt_column, completion_column: of what is given, never masked, and of what is learned.
        messages_column: of conversations, lists of {"role": ..., "content": ...}.
        ids_column: of lists of token ids, which need no tokenizer; a `prompt_column` beside it
            holds lists of ids, too, which are given and stand before them.
    """

    text_column: str = _TEXT_COLUMN
    prompt_column: str | None = None
    completion_column: str | None = None
    messages_column: str | None = None
    ids_column: str | None = None

    def __post_init__(self) -> None:
        """Refuse a prompt without completion, and more than one form."""
        learned = [self.completion_column, self.messages_column, self.ids_column]
        if sum(column is not None for column in learned) > 1:
            raise ValueError(
                "`completion_column`, `messages_column` and `ids_column` say what of a row is "
                "learned; give one of them, or none where it holds a text."
            )
        named = next((column for column in learned if column is not None), None)
        if named is not None and self.text_column != _TEXT_COLUMN:
            raise ValueError(
                f"`text_column` names texts ({self.text_column!r}), and another option names what "
                f"is learned instead of them ({named!r}); leave one of the two out."
            )
        takes_prompt = self.completion_column is not None or self.ids_column is not None
        if self.prompt_column is not None and not takes_prompt:
            raise ValueError(
                "`prompt_column` names what is given and `completion_column` what is learned "
                "behind it, or `ids_column` where both are token ids; give two of them, or none."
            )
        if self.completion_column is not None and self.prompt_column is None:
            raise ValueError(
                "`completion_column` names what is learned behind what `prompt_column` names; give "
                "both, or `text_column` where nothing is given."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        learned = self.completion_column or self.messages_column or self.ids_column
        if self.prompt_column is not None and learned is not None:
            return self.prompt_column, learned
        return (learned or self.text_column,)

    @property
    def fixes_tokens(self) -> bool:
        """Whether a part of each example is given and never masked."""
        return self.prompt_column is not None or self.messages_column is not None

    @property
    def framed(self) -> bool:
        """Whether the tokenizer's special tokens go around: a chat template has its own."""
        return self.messages_column is None


class Body(NamedTuple):
    """What became of one row.

    Attributes:
        ids: its tokens, not framed.
        maskable: 0 at each token that is given, else 1; None where nothing is given.
        reading: how much of it the tokenizer knew.
    """

    ids: list[int]
    maskable: list[int] | None
    reading: Reading


class Tokenising:
    """Turns rows into bodies, batch by batch: the same for data sets and for streams.

    Args:
        tokenizer: one with a mask token.
        form: what the rows hold.
        drop_empty_texts: drop rows without anything to learn instead of refusing them. A null is
            then an empty text, an empty list of ids or an empty conversation.

    Raises:
        ValueError: for a tokenizer without mask token, or without template where it needs one.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, form: Form, drop_empty_texts: bool = False
    ) -> None:
        self.tokenizer, self.form, self.drop_empty_texts = tokenizer, form, drop_empty_texts
        fields = tokenizer_fields(tokenizer)
        self._hidden = never_emitted(fields)  # a text of these alone teaches nothing
        self._padding = padding_alone(tokenizer, fields)
        self._reader = TextReader(tokenizer)
        self._conversations = ConversationReader(tokenizer) if form.messages_column else None

    def __call__(self, *given: Sequence[Any]) -> dict[str, list[Any]]:
        """Tokenise some rows.

        Args:
            *given: the columns of the form, and last the number or name of each row.

        Returns:
            The columns `input_ids`, `num_tokens` and `row`; `maskable` where the form fixes
            tokens; and of `Reading` `num_words`, `num_unknown` and `unknown_words` (a line each).

        Raises:
            FaultyRowError: for a row that is not what the form says, has nothing to learn (unless
                those are dropped), or holds the mask or the padding token.
        """
        *columns, rows = given
        if self.drop_empty_texts:
            columns, rows = self._without_nulls(columns, rows)
        kept = []
        for body, row in zip(self._bodies(columns, rows), rows, strict=True):
            self._check_lacks(body, row, self.tokenizer.mask_token_id, "mask")
            learned = body.ids
            if body.maskable is not None:
                learned = [i for i, free in zip(body.ids, body.maskable, strict=True) if free]
            if not self._hidden.issuperset(learned):
                self._check_lacks(body, row, self._padding, "padding")  # batches would not tell
                kept.append((body, row))
            elif not self.drop_empty_texts:
                raise FaultyRowError(
                    f"The text in row {row} has no token that could be masked. Remove it, or "
                    "set `drop_empty_texts` to drop such texts and report their number.",
                    row,
                )
        made: dict[str, list[Any]] = {
            "input_ids": [body.ids for body, _ in kept],
            "num_tokens": [len(body.ids) for body, _ in kept],
            "row": [row for _, row in kept],
            "num_words": [body.reading.words for body, _ in kept],
            "num_unknown": [body.reading.unknown for body, _ in kept],
            "unknown_words": ["\n".join(body.reading.examples) for body, _ in kept],
        }
        if self.form.fixes_tokens:
            made["maskable"] = [body.maskable for body, _ in kept]
        return made

    def fingerprint(self, of: str) -> str:
        """Name what this makes of a data set, the same in every process: the key of the cache.

        datasets would hash this object, whose tokenizer changes with its first use.

        Args:
            of: fingerprint of the data set.
        """
        key = [_CONTENT, of, tokenizer_key(self.tokenizer), asdict(self.form)]
        key.append(self.drop_empty_texts)
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]

    def _without_nulls(
        self, columns: list[Sequence[Any]], rows: Sequence[Any]
    ) -> tuple[list[Sequence[Any]], Sequence[Any]]:
        """Leave out rows of whose last column nothing is there to learn; a null prompt is empty."""
        there = [number for number, learned in enumerate(columns[-1]) if learned is not None]
        empty: Any = "" if self.form.ids_column is None else []
        left = [[column[i] for i in there] for column in columns]
        return (
            [[empty if one is None else one for one in column] for column in left],
            [rows[i] for i in there],
        )

    def _bodies(self, columns: list[Sequence[Any]], rows: Sequence[Any]) -> list[Body]:
        form = self.form
        if self._conversations is not None:
            return [
                self._body_of_conversation(conversation, row)
                for conversation, row in zip(columns[0], rows, strict=True)
            ]
        read = self._read if form.ids_column is None else self._read_ids
        parts = [
            read(column, rows, name) for column, name in zip(columns, form.columns, strict=True)
        ]
        if len(parts) == 1:
            return [Body(ids, None, reading) for ids, reading in parts[0]]
        # Apart, so that a prompt has the same tokens when a completion is asked for.
        return [
            Body(
                prompt + completion,
                [0] * len(prompt) + [1] * len(completion),
                sum_of((read_before, read_behind)),
            )
            for (prompt, read_before), (completion, read_behind) in zip(*parts, strict=True)
        ]

    def _read(
        self, texts: Sequence[Any], rows: Sequence[Any], column: str
    ) -> list[tuple[list[int], Reading]]:
        for text, row in zip(texts, rows, strict=True):
            if not isinstance(text, str):
                said = f"Row {row} of column {column!r} holds {type(text).__name__}, not a text."
                advice = " Remove the row, or set `drop_empty_texts`." if text is None else ""
                raise FaultyRowError(said + advice, row)
        encoded = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)
        readings = self._reader.read(texts, encoded)
        return list(zip(encoded["input_ids"], readings, strict=True))

    def _read_ids(
        self, lists: Sequence[Any], rows: Sequence[Any], column: str
    ) -> list[tuple[list[int], Reading]]:
        size = self.tokenizer.mask_token_id  # the first id behind those of the data
        checked = [
            _checked_ids(ids, row, column, size) for ids, row in zip(lists, rows, strict=True)
        ]
        return [(ids, Reading(len(ids))) for ids in checked]

    def _body_of_conversation(self, conversation: Any, row: Any) -> Body:
        assert self._conversations is not None
        try:
            text, encoded, maskable = self._conversations.read(conversation)
        except ValueError as error:
            raise FaultyRowError(f"The conversation in row {row} {error}", row) from error
        (reading,) = self._reader.read([text], encoded)
        return Body(encoded["input_ids"][0], maskable, reading)

    def _check_lacks(self, body: Body, row: Any, token: int | None, role: str) -> None:
        if token in body.ids:
            raise FaultyRowError(
                f"The text in row {row} contains the {role} token "
                f"{self.tokenizer.convert_ids_to_tokens(token)!r} itself, which no text may hold: "
                f"it marks what is {'hidden' if role == 'mask' else 'no text'}. Remove it from the "
                "text.",
                row,
            )


def tokenize_texts(
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    form: Form | None = None,
    drop_empty_texts: bool = False,
    num_proc: int | None = None,
    max_unknown_share: float | None = None,
) -> Dataset:
    """Tokenise a data set without framing and without cutting; see `prepare_examples`.

    What was tokenised once is read from the cache of datasets, by the contents of data, tokenizer
    and options.

    Returns:
        A data set with the columns that `Tokenising` makes, one row per text that is not empty.

    Raises:
        ValueError: for a stream or anything else that is no data set with rows to be numbered; for
            a missing column; for what `Tokenising` refuses; and for texts that are mostly unknown
            to the tokenizer.
    """
    form = form or Form()
    _check_is_dataset(texts)
    check_columns(texts.column_names, form)
    tokenise = Tokenising(tokenizer, form, drop_empty_texts)
    bodies = texts.map(
        tokenise,
        batched=True,
        with_indices=True,
        input_columns=list(form.columns),
        remove_columns=texts.column_names,
        num_proc=num_proc,
        new_fingerprint=tokenise.fingerprint(texts._fingerprint),
        desc="Tokenising",
    )
    named = " and ".join(map(repr, form.columns))
    if len(bodies) == 0:
        raise ValueError(f"All {len(texts)} texts of column {named} are empty.")
    if len(bodies) < len(texts):
        logger.info("%d empty texts of %d were dropped.", len(texts) - len(bodies), len(texts))
    check_read(reading_of(bodies), f"the texts in column {named}", max_unknown_share)
    return bodies


def check_columns(present: Sequence[str], form: Form) -> None:
    """Raise a ValueError for a column that a data set does not have."""
    for column in form.columns:
        if column not in present:
            raise ValueError(
                f"The data set has no column {column!r}; its columns are {list(present)}. "
                "Name the one that holds the texts with `text_column`."
            )


def reading_of(bodies: Dataset) -> Reading:
    """Add up how much of the texts from `tokenize_texts` the tokenizer knew."""
    columns = bodies.with_format("numpy")
    unknown = columns["num_unknown"][:]
    rows = bodies.select(unknown.nonzero()[0][:_ROWS_WITH_EXAMPLES])
    examples = sum_of(Reading(examples=tuple(text.split("\n"))) for text in rows["unknown_words"])
    return Reading(int(columns["num_words"][:].sum()), int(unknown.sum()), examples.examples)


def reading_of_batch(bodies: Mapping[str, list[Any]]) -> Reading:
    """Add up how much of the rows of one batch of `Tokenising` the tokenizer knew."""
    examples = sum_of(
        Reading(examples=tuple(text.split("\n"))) for text in bodies["unknown_words"] if text
    )
    return Reading(sum(bodies["num_words"]), sum(bodies["num_unknown"]), examples.examples)


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash what decides how a tokenizer reads: its rules, its table, and its chat template.

    How it last cut and padded is left out: that changes with every call.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else repr(tokenizer.init_kwargs)
    if isinstance(rules, dict):
        rules = {name: rule for name, rule in rules.items() if name not in _STATE}
    special = {role: str(token) for role, token in tokenizer.special_tokens_map.items()}
    table = sorted(tokenizer.get_vocab().items())
    key = [type(tokenizer).__name__, rules, special, table, str(tokenizer.chat_template)]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


_STATE = ("truncation", "padding")


def _checked_ids(ids: Any, row: Any, column: str, vocab_size: int) -> list[int]:
    """Return a row's ids, none of which may be beyond the vocabulary."""
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        raise FaultyRowError(f"Row {row} of column {column!r} holds no list of integers.", row)
    for i in ids:
        if not 0 <= i < vocab_size:
            raise FaultyRowError(
                f"Row {row} of column {column!r} holds the id {i}, and `vocab_size` is "
                f"{vocab_size}: ids lie in 0..{vocab_size - 1}.",
                row,
            )
    return ids


def _check_is_dataset(texts: Any) -> None:
    if isinstance(texts, Dataset):
        return
    if isinstance(texts, IterableDataset):
        raise ValueError(
            "The texts are a stream, an IterableDataset, whose rows have no number. Train on it "
            "with scripts/train.py --streaming, take a part as a data set, "
            "`Dataset.from_list(list(stream.take(100_000)))`, or load it without `streaming`."
        )
    advice = (
        f"name one of its splits {sorted(texts)}"
        if isinstance(texts, DatasetDict)
        else ("make one, for example with `Dataset.from_dict({'text': texts})`")
    )
    raise ValueError(
        f"The texts must be a `datasets.Dataset`, got {type(texts).__name__}; {advice}."
    )
