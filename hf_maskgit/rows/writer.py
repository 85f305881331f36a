"""A generator as a function of rows: texts and a seed each go in, what became of them comes out.

What a row becomes follows from its text, its seed and the options. In float32 the last bits of
logits also follow from the shape of the batch, so that who wants the same bytes again makes the
same batches.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..core.decoding_lengths import NUM_TOKENS
from ..core.generation_config_maskgit import MaskGitGenerationConfig
from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..core.text_reader import TextReader, named
from ..core.unknown_tokens import Reading, check_each_read, counted_before

_READ_TOGETHER = 10_000  # texts


def checked_options(options: Mapping[str, Any]) -> MaskGitGenerationConfig:
    """Return the options with which rows are written; what depends on the model is not looked at.

    Raises:
        ValueError: for what are none, do not go together, or say how many samples there are.
    """
    config = MaskGitGenerationConfig(**options)
    if config.num_return_sequences is not None:
        raise ValueError(
            "`num_return_sequences` is not asked of rows, each of which becomes one text per "
            "sample; leave it out, and ask for as many samples (--num_samples of "
            "scripts/generate.py)."
        )
    return config


class RowWriter:
    """Writes what becomes of texts with the same options.

    Args:
        model: in eval mode.
        tokenizer: its own.
        options: of `MaskGitGenerationConfig`, by name.
        num_samples: how many samples there will be of each text; several need a sampler that draws.

    Raises:
        ValueError: as `checked_options`, and for several samples of what draws nothing.
    """

    def __init__(
        self,
        model: MaskGitForMaskedLM,
        tokenizer: PreTrainedTokenizerBase,
        options: Mapping[str, Any],
        num_samples: int = 1,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        config = checked_options(options)
        self._resolved = model.resolve_options(config, None, {"num_return_sequences": num_samples})
        config.do_sample = self._resolved.do_sample
        # It is named in the calls, where it also says how far a text with masks goes on.
        self._max_new_tokens = config.max_new_tokens
        config.max_new_tokens = None
        self._config = config

    def lengths(self, num_texts: int) -> Callable[[int], int] | None:
        """Tell how many tokens each text gets, by its number.

        Args:
            num_texts: how many there are.

        Returns:
            None where nothing is named.

        Raises:
            ValueError: for several numbers that are not as many as the texts.
        """
        length: int | list[int] | None = self._max_new_tokens
        if length is None:
            return None
        lengths = length if isinstance(length, list) else [length]
        if len(lengths) not in (1, num_texts):
            raise ValueError(
                f"`max_new_tokens` has {len(lengths)} numbers for {num_texts} texts; give one for "
                "all, or one per text."
            )
        return lambda number: lengths[number] if len(lengths) > 1 else lengths[0]

    def is_filled(self, text: str) -> bool:
        """Tell whether a text is filled, as it holds masks, and not continued."""
        return self.tokenizer.mask_token in text

    def write(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        lengths: Sequence[int] | None = None,
        looks_on: Any = None,
    ) -> list[str]:
        """Write what becomes of each text of a batch.

        Args:
            texts: B, all to be filled or all to be continued.
            seeds: one per text.
            lengths: tokens to add to each; None where the call names none.
            looks_on: a `FirstText` of the visualization, or None.

        Returns:
            The B texts, without special tokens.
        """
        inputs = self.tokenizer(
            list(texts),
            padding=True,
            return_attention_mask=True,  # FNet's tokenizer makes none by itself
            return_tensors="pt",
        )
        own: dict[str, Any] = {} if lengths is None else {"max_new_tokens": list(lengths)}
        own |= looks_on.options() if looks_on else {}
        with counted_before():  # by words, text by text
            written: Any = self.model.generate(
                **inputs.to(self.model.device),
                generation_config=self._config,
                seed=list(seeds),
                tokenizer=self.tokenizer,
                num_return_sequences=1,
                **own,
            )
        if looks_on:
            looks_on.finish(written)
        sequences = getattr(written, "sequences", written)
        return list(self.tokenizer.batch_decode(sequences, skip_special_tokens=True))

    def measure(self, texts: Sequence[str]) -> tuple[list[int], list[Reading]]:
        """Count the tokens of texts, framing included, and the words that are not known.

        Args:
            texts: any number.
        """
        reader, tokens, readings = TextReader(self.tokenizer), [], []
        for start in range(0, len(texts), _READ_TOGETHER):
            some = list(texts[start : start + _READ_TOGETHER])
            encoded = self.tokenizer(some, verbose=False)
            tokens += [len(ids) for ids in encoded["input_ids"]]
            readings += reader.read(some, encoded)
        return tokens, readings

    def check_readings(self, readings: Sequence[Reading], text_of: Callable[[int], str]) -> None:
        """Refuse a text that is mostly unknown to the tokenizer; warn of all in one sentence.

        Args:
            readings: from `measure`.
            text_of: the text of one of them, by its number.

        Raises:
            ValueError: showing the first such text.
        """
        share = self._resolved.max_unknown_share
        check_each_read(readings, lambda i: named(text_of(i)), "the texts", share)

    def check_stops(self, texts: Iterable[str]) -> None:
        """Refuse stop strings that are asked for where no text gets new tokens.

        Args:
            texts: all of them; looked at up to the first that is continued.

        Raises:
            ValueError: saying so.
        """
        named = self._max_new_tokens
        if self._config.stop_strings is None:
            return
        if named is None:
            appends = not all(map(self.is_filled, texts))
        else:
            appends = any(named if isinstance(named, list) else [named])
        if not appends:
            raise ValueError(
                "`stop_strings` end appended text, and nothing is appended here: masks alone are "
                "filled. Leave them out, or ask for `max_new_tokens`."
            )

    def room(self, text: str, length: int | None) -> int:
        """Count the tokens that a text will surely get.

        Args:
            text: to fill or to continue.
            length: that the call names, if any.
        """
        if NUM_TOKENS[self._resolved.num_tokens].varies:
            return 0
        if length is not None or self.is_filled(text):
            return length or 0
        stored = self._resolved.max_new_tokens
        return stored if isinstance(stored, int) else 0
