"""From tokenised texts to a masked batch: padding, keyed noise, and the forward process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ..core.argument_checks import check_is_tokenizer, check_whole
from ..core.configuration_maskgit import MaskGitConfig
from ..core.losses import IGNORED_LABEL
from ..core.masking import Masking, maskable_positions, stratified_times
from ..core.noise import keyed_generator
from ..core.row_checks import (
    check_example,
    check_padding_of_example,
    token_column,
    whole_numbers,
)
from ..core.schedules import Schedule
from ..core.special_tokens import (
    check_tokenizer,
    never_emitted,
    ordinary_ids,
    padding_alone,
    tokenizer_fields,
)
from ..core.unknown_tokens import RunningCount, Tolerance
from .document_rows import DocumentRows
from .example_noise import example_noise
from .strata import ranks, strata_given

_WIDEST = 65_536  # tokens that a padded length is rounded up to
_NOISE = ("maskable", "times", "coins", "uniforms")  # of what is drawn, all that masking uses up


class DataCollatorForMaskGit:
    """Turn tokenised texts into a masked training batch.

    One call takes one process's share of one whole optimizer update: times are stratified over it,
    and it may be cut into micro-batches afterwards without changing anything. Noise is keyed by
    (seed, epoch, example id) when the examples carry an `example_id`; without one it comes from
    torch's global generator, as in transformers' own masking collator, and such a run does not
    resume exactly.

    Whoever knows the whole update gives each example its `time_stratum`, from `strata`: then every
    share gets the times that it has within the whole, into however many it is split.

    `transformers.Trainer` drops the columns `example_id` and `maskable` before they come here.
    Where they matter, set `remove_unused_columns=False` and add `callbacks.SetEpochCallback`; or
    mark fixed tokens by `labels` of -100, which Trainer keeps.

    Args:
        tokenizer: gives the special ids and the framing.
        schedule: how much of a text is masked at each time. This and the options that follow, to
            `choice`, are those of `Masking`, which says what each of them is.
        seed: first part of the key of the noise.
        process_index, num_processes: this process among those that share an update, where the
            examples have no `time_stratum`: of 2 processes, the first takes every other stratum.
        pad_to_multiple_of: round the padded length up to a multiple of this.
        max_unknown_share: largest share of the first batch that may be unknown to the tokenizer.
        count_unknown: False where the texts were counted when they were tokenised.

    Raises:
        ValueError: for a tokenizer without mask or padding token, or an option out of its range.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        schedule: str | Callable[[Tensor], Tensor] | Schedule = Masking.schedule,
        *,
        no_replace_prob: float = Masking.no_replace_prob,
        random_token_prob: float = Masking.random_token_prob,
        corruption_prob: float = Masking.corruption_prob,
        use_simple_mdlm_loss_weight: bool = Masking.use_simple_mdlm_loss_weight,
        choice: str = Masking.choice,
        seed: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
        pad_to_multiple_of: int | None = None,
        max_unknown_share: float = Tolerance.max_unknown_share,
        count_unknown: bool = True,
    ) -> None:
        self.masking = Masking(
            schedule=schedule,
            no_replace_prob=no_replace_prob,
            random_token_prob=random_token_prob,
            corruption_prob=corruption_prob,
            use_simple_mdlm_loss_weight=use_simple_mdlm_loss_weight,
            choice=choice,
        )
        check_is_tokenizer(tokenizer)
        check_whole("seed", seed)
        check_whole("num_processes", num_processes, least=1)
        check_whole("process_index", process_index)
        if pad_to_multiple_of is not None:
            check_whole("pad_to_multiple_of", pad_to_multiple_of, least=0, most=_WIDEST)
        if not 0 <= process_index < num_processes:
            raise ValueError(
                f"`process_index` must lie in 0..{num_processes - 1}, got {process_index}."
            )
        if tokenizer.pad_token_id is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has no padding token, so texts of different lengths "
                "make "
                'no batch. Add one with tokenizer.add_special_tokens({"pad_token": "[PAD]"}).'
            )
        self.tokenizer = tokenizer
        self.seed = int(seed)
        self.process_index = int(process_index)
        self.num_processes = int(num_processes)
        self.pad_to_multiple_of = pad_to_multiple_of
        self.epoch = 0
        self._token_ids = tokenizer_fields(tokenizer)
        self._ordinary_ids = torch.tensor(ordinary_ids(self._token_ids))
        self._never_maskable = sorted(never_emitted(self._token_ids))
        counter = RunningCount(self._token_ids, max_unknown_share)
        self._unknown = counter if count_unknown else None

    @classmethod
    def from_config(
        cls, config: MaskGitConfig, tokenizer: PreTrainedTokenizerBase, **overrides: Any
    ) -> "DataCollatorForMaskGit":
        """Make the collator that a model's configuration describes.

        Args:
            config: gives schedule, probabilities and weighting.
            tokenizer: must be the tokenizer that the configuration was made with.
            **overrides: any argument of the constructor.

        Raises:
            ValueError: when the tokenizer's mask token is not the configuration's, or it has grown
                since and the model may write what it does not know.
        """
        if tokenizer.mask_token_id != config.mask_token_id:
            raise ValueError(
                f"The tokenizer's mask token has id {tokenizer.mask_token_id}, the model's config "
                f"says {config.mask_token_id}; use the tokenizer that the model was made with."
            )
        check_tokenizer(vars(config), tokenizer)
        made = cls(tokenizer, **{**config.masking_options(), **overrides})
        # Where the two differ, as in what ends a text, the model's own view is what it can learn.
        ids = {name: getattr(config, name) for name in made._token_ids}
        ids = {name: made._token_ids[name] if i is None else i for name, i in ids.items()}
        forbidden = set(config.forbidden_token_ids)
        made._token_ids = ids
        made._ordinary_ids = torch.tensor([i for i in ordinary_ids(ids) if i not in forbidden])
        made._never_maskable = sorted(never_emitted(ids) | forbidden)
        return made

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, the second part of the key of the noise."""
        self.epoch = epoch

    def strata(self, example_ids: Sequence[int]) -> list[int]:
        """Rank the examples of one whole update by the first draw of each.

        Args:
            example_ids: of all its examples, in any order.

        Returns:
            Of each, which stratum of (0, 1] its time lies in: a permutation of 0, 1, 2, ...
        """
        keys = [keyed_generator(self.seed, self.epoch, int(number)) for number in example_ids]
        first = [torch.rand(1, generator=key, dtype=torch.float64) for key in keys]
        ranked: list[int] = ranks(torch.cat(first)).tolist()
        return ranked

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Pad, choose and corrupt.

        Args:
            features: one dict per example with `input_ids` (ints), and where wanted
                `attention_mask`, `token_type_ids`, `document_ids` (of texts packed into one,
                counted from 1), `example_id` (int) and `maskable` (0 where a token is fixed, such
                as a prompt). `labels`, -100 where a token is fixed and the token itself elsewhere,
                say the same as `maskable`. `time_stratum`, a pair (which, of how many), in all of
                them or in none: see `strata`.

        Returns:
            `input_ids` (B, L) long, corrupted; `attention_mask` (B, L) long; `labels` (B, L) long,
            the true ids, -100 where not maskable; `masked_positions` (B, L) bool, the chosen
            positions; `loss_weights` (B, L) float32, 0 where not chosen; `token_type_ids` and
            `document_ids` when given. Each document has a time of its own.

        Raises:
            ValueError: for an example with the literal mask token, without a maskable position, or
                with labels of its own; for strata that no update has; for a first batch that is
                mostly unknown to the tokenizer.
        """
        return self.mask(self.draw(features))

    def draw(self, features: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Pad, and draw all noise: what a loader's worker can do before the update is known.

        Args:
            features: as for a call.

        Returns:
            `input_ids` (B, L) long, the true ones; `attention_mask` (B, L) long; `maskable` (B, L)
            bool; `times` (B, L) float64 in (0, 1] and `coins` (B, L, 2) float64 in [0, 1), both the
            same at all tokens of a document; `uniforms` (B, L, 3) float64 in [0, 1); all of these 0
            at padding; `token_type_ids` and `document_ids` when given.

        Raises:
            ValueError: as a call.
        """
        if not isinstance(features, Sequence):
            raise TypeError(f"A batch must be a list of examples, got {type(features).__name__}.")
        if len(features) == 0:
            raise ValueError("There is no example to make a batch of.")
        for feature in features:
            check_example(feature)
            if "example_id" in feature:
                check_whole("example_id", feature["example_id"])
        batch, maskable = self._pad(features)
        documents = _documents(batch)
        self._check(features, batch["input_ids"], documents, maskable)
        if self._unknown is not None:
            self._unknown.add(batch["input_ids"], batch["attention_mask"])
        real = batch["attention_mask"].bool()
        noise = example_noise(features, documents, real, self.seed, self.epoch)
        strata, num_strata = strata_given(features) or (
            # With 2 processes of 2 examples each, process 0 has the strata 0 and 2 of 4, process 1
            # the strata 1 and 3.
            ranks(noise.stratum) * self.num_processes + self.process_index,
            len(features) * self.num_processes,
        )
        times = stratified_times(strata, noise.offset, num_strata)
        # Strata again: each of the documents of an example has one of its own, and the example's
        # time is where in it. An update of 8 examples of 4 documents so has 32 strata in all; and
        # the time of a text that is the only one is that of the example.
        num_documents = torch.bincount(documents.row, minlength=len(features))
        times = stratified_times(
            noise.places, 1 - times[documents.row], num_documents[documents.row]
        )
        return {
            **batch,
            "maskable": maskable,
            "times": documents.spread(times),
            "coins": documents.spread(noise.coins),
            "uniforms": noise.uniforms,
        }

    def mask(
        self, drawn: Mapping[str, Tensor], schedule: Schedule | None = None
    ) -> dict[str, Tensor]:
        """Choose and corrupt: a function of what was drawn.

        Args:
            drawn: from `draw`, on any device that knows float64; what else it holds is passed on.
            schedule: how much is masked at each time; None is the collator's own.

        Returns:
            As a call.
        """
        masking = self.masking if schedule is None else replace(self.masking, schedule=schedule)
        rest = {name: tensor for name, tensor in drawn.items() if name not in _NOISE}
        maskable, uniforms = drawn["maskable"], drawn["uniforms"]
        documents = _documents(drawn)
        self._ordinary_ids = self._ordinary_ids.to(maskable.device)  # moved once
        chosen, weights = masking.choose(
            documents.gather(drawn["times"]),
            documents.split(maskable),
            documents.split(uniforms[..., 0]),
        )
        chosen, weights = documents.join(chosen), documents.spread(weights)
        return {
            **rest,
            "input_ids": masking.corrupt(
                drawn["input_ids"],
                chosen,
                drawn["coins"],
                uniforms[..., 1:],
                self._token_ids["mask_token_id"],
                self._ordinary_ids,
            ),
            "labels": drawn["input_ids"].masked_fill(~maskable, IGNORED_LABEL),
            "masked_positions": chosen,
            "loss_weights": (weights * chosen).float(),
        }

    def _pad(self, features: Sequence[dict[str, Any]]) -> tuple[dict[str, Tensor], Tensor]:
        absent = {"input_ids": 0, "attention_mask": 1, "maskable": 1}
        if any("document_ids" in feature for feature in features):
            absent["document_ids"] = 1
        if any("token_type_ids" in feature for feature in features):
            absent["token_type_ids"] = self.tokenizer.pad_token_type_id
        features = [_as_tensors(feature, (*absent, "labels")) for feature in features]
        alone = padding_alone(self.tokenizer, self._token_ids)
        for row, feature in enumerate(features):
            check_padding_of_example(feature, _name(feature, row), alone)
        features = [_with_maskable(feature) for feature in features]
        columns = {
            name: [token_column(feature, name, value) for feature in features]
            for name, value in absent.items()
            if name == "input_ids" or any(name in feature for feature in features)
        }
        # Padded on the right, whatever the tokenizer does: so each text begins at position 0,
        # and an encoder that counts positions from the left sees the same in every batch.
        width = max(map(len, columns["input_ids"]))
        if self.pad_to_multiple_of:
            width += -width % self.pad_to_multiple_of
        padding = {
            "input_ids": self.tokenizer.pad_token_id,
            "token_type_ids": self.tokenizer.pad_token_type_id,
        }
        ruler = torch.zeros(width, dtype=torch.long)  # pad_sequence pads to the longest row
        lengths = torch.tensor([len(column) for column in columns["input_ids"]])
        real = torch.arange(width) < lengths[:, None]
        padded = {
            name: pad_sequence(
                [*columns[name], ruler],
                batch_first=True,
                padding_value=padding.get(name, 0),
            )[:-1]
            if name in columns
            else torch.where(real, value, padding.get(name, 0))
            for name, value in absent.items()
        }
        maskable = padded.pop("maskable").bool() & maskable_positions(
            padded["input_ids"],
            padded["attention_mask"],
            self._token_ids["prefix_ids"],
            self._token_ids["suffix_ids"],
            self._never_maskable,
        )
        return padded, maskable

    def _check(
        self,
        features: Sequence[dict[str, Any]],
        input_ids: Tensor,
        documents: DocumentRows,
        maskable: Tensor,
    ) -> None:
        literal = documents.split(input_ids == self.tokenizer.mask_token_id).any(1)
        empty = ~documents.split(maskable).any(1)
        for bad, what in (
            (literal, f"contains the literal mask token {self.tokenizer.mask_token!r}"),
            (empty, "has no maskable position: only framing, padding or fixed prompt"),
        ):
            if bool(bad.any()):
                row = int(documents.row[bad][0])
                name = _name(features[row], row)
                raise ValueError(f"{name} {what}; it cannot be trained on. Drop or change it.")


def _documents(batch: Mapping[str, Tensor]) -> DocumentRows:
    """Find the documents of a batch; where nothing tells them, each row is one."""
    return DocumentRows(batch.get("document_ids", batch["attention_mask"]))


def _name(feature: dict[str, Any], row: int) -> str:
    """Name an example in an error."""
    return f"Example {feature.get('example_id', f'{row} of this batch')}"


def _as_tensors(feature: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Read the columns of an example with these names, once for all that look at them."""
    read = {name: whole_numbers(name, feature[name]) for name in names if name in feature}
    return {**feature, **read}


def _with_maskable(feature: dict[str, Any]) -> dict[str, Any]:
    """Read `maskable` off an example's labels, if it has any."""
    if "labels" not in feature:
        return feature
    labels, ids = (whole_numbers(name, feature[name]) for name in ("labels", "input_ids"))
    allowed = labels != IGNORED_LABEL
    if labels.shape != ids.shape or bool((labels != ids)[allowed].any()):
        raise ValueError(
            "An example's `labels` must repeat its `input_ids`, or be -100 at fixed tokens: masked "
            "diffusion learns to restore the text itself."
        )
    # Either column can only fix a token, never free one that the other has fixed.
    both = allowed & token_column(feature, "maskable", 1).bool()
    return {**feature, "maskable": both.long()}
