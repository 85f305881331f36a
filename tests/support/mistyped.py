"""Calls with values of the wrong kind, drawn with a seed: each is answered, or refused by us."""

import random
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError

from hf_maskgit import DataCollatorForMaskGit, MaskGitConfig, MaskGitForMaskedLM, nelbo
from hf_maskgit.core.checkpoint_files import raised_in
from hf_maskgit.core.configuration_maskgit import own_fields
from hf_maskgit.core.generation_config_maskgit import OPTIONS
from hf_maskgit.evaluation import critic_auroc, evaluate_nelbo, masked_accuracy
from tests.support.project import PACKAGE
from tests.support.tiny import bert_config, tiny_encoder, tiny_model, word_tokenizer

Call = Callable[[], Any]


def values() -> list[Any]:
    """What people and programs put in the place of something else."""
    return [
        *(None, True, False, 0, 1, 3, -1, 999, 10**18, -(10**18), 10**400),
        *(0.5, 2.0, -0.5, float("nan"), float("inf"), -float("inf"), 1e-300, 1e300, 1j),
        *("", "linear", "x", "3", "0.5", "None", "\x00", "[MASK]", b"x"),
        *([], [1], [5, 6], [-1], [999], [0.5], ["a"], [None], [[1]], [[1, 2], [3]], [True]),
        *((), (1, 2), {1}, {}, {"a": 1}, {3: [7]}, {3: 7}, {"3": [7]}, [{3: [7]}, None], range(3)),
        *(object(), lambda t: t, lambda *a, **k: None, iter([1, 2])),
        *(np.int64(3), np.float32(0.5), np.array([1, 2]), np.array("x"), np.array(["x", "y"])),
        *(torch.tensor(3), torch.tensor(0.5), torch.tensor([1, 2]), torch.ones(2, 6)),
        *(torch.ones(2, 6, dtype=torch.long), torch.zeros(2, 6, dtype=torch.bool)),
        *(torch.full((2, 6), -1), torch.full((2, 6), 999), torch.ones(2, 6, 1), torch.empty(0)),
        *(torch.ones(1, 6, dtype=torch.long), torch.empty(2, 0, dtype=torch.long)),
        *(torch.full((2, 6), float("nan")), torch.zeros(2, 6, dtype=torch.int8)),
        *(torch.Generator(), torch.device("cpu"), torch.float32, word_tokenizer()),
    ]


TEXT = torch.tensor([[2, 7, 4, 8, 4, 3], [2, 4, 9, 4, 9, 3]])
CLEAN = torch.tensor([[2, 7, 9, 8, 5, 3], [2, 6, 9, 7, 9, 3]])
LABELS = torch.where(TEXT == 4, CLEAN, -100)
_INPUTS = (
    "input_ids attention_mask token_type_ids generation_config preset logits_processor "
    "stopping_criteria schedule seed generator negative_prompt_ids negative_prompt_attention_mask "
    "allowed_token_ids pattern tokenizer streamer callback_on_step_end"
).split()
_OF_COLLATOR = (
    "schedule no_replace_prob random_token_prob corruption_prob use_simple_mdlm_loss_weight "
    "choice seed process_index num_processes pad_to_multiple_of"
).split()
_OF_FEATURE = (
    "input_ids attention_mask token_type_ids example_id maskable labels time_stratum"
).split()
_OF_FORWARD = (
    "input_ids attention_mask token_type_ids labels masked_positions loss_weights "
    "num_items_in_batch has_previous self_condition train critic_temperature"
).split()
_OF_NELBO = (
    "input_ids attention_mask maskable num_samples generator self_condition token_type_ids"
).split()


class Calls:
    """Draws calls in which one or two arguments hold something else than they should."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.model, self.tokenizer = (
            tiny_model(token_critic="self", self_cond=True),
            word_tokenizer(),
        )
        self.encoder = tiny_encoder()
        self.kinds = [
            *[self.generate] * 4,
            *[self.continue_text] * 2,
            self.from_encoder,
            self.config,
            self.collator,
            self.features,
            self.forward,
            self.nelbo,
            self.evaluate,
        ]

    def draw(self) -> tuple[str, dict[str, Any], Call]:
        """Return what is called, the odd arguments, and the call."""
        kind = self.random.choice(self.kinds)
        odd, call = kind()
        return kind.__name__, odd, call

    def _odd(self, names: list[str]) -> dict[str, Any]:
        count = self.random.choice([1, 1, 1, 2])
        return {name: self.random.choice(values()) for name in self.random.sample(names, count)}

    def generate(self) -> tuple[dict[str, Any], Call]:
        odd = self._odd([*_INPUTS, *OPTIONS])
        return odd, lambda: self.model.generate(**{"input_ids": TEXT, "steps": 3} | odd)

    def continue_text(self) -> tuple[dict[str, Any], Call]:
        odd = self._odd([*_INPUTS, *OPTIONS])
        given = {"input_ids": CLEAN, "max_new_tokens": 3, "steps": 3, "tokenizer": self.tokenizer}
        return odd, lambda: self.model.generate(**given | odd)

    def from_encoder(self) -> tuple[dict[str, Any], Call]:
        odd = self._odd(["encoder", "tokenizer", "critic", *own_fields()])
        given = {"encoder": self.encoder, "tokenizer": self.tokenizer} | odd
        return odd, lambda: MaskGitForMaskedLM.from_encoder(given.pop("encoder"), **given)

    def config(self) -> tuple[dict[str, Any], Call]:
        odd = self._odd(own_fields())
        given = {"text_config": bert_config(), "mask_token_id": 4} | odd
        return odd, lambda: MaskGitConfig(**given)

    def collator(self) -> tuple[dict[str, Any], Call]:
        odd = self._odd(["tokenizer", *_OF_COLLATOR])
        given = {"tokenizer": self.tokenizer} | odd
        examples = [{"input_ids": row.tolist(), "example_id": 0} for row in CLEAN]
        return odd, lambda: DataCollatorForMaskGit(given.pop("tokenizer"), **given)(examples)

    def features(self) -> tuple[dict[str, Any], Call]:
        odd = self._odd(_OF_FEATURE)
        example = {"input_ids": [2, 7, 9, 3]} | odd
        collator = DataCollatorForMaskGit(self.tokenizer)
        examples = self.random.choice([[example], [{"input_ids": [2, 7, 3]}, example]])
        examples = self.random.choice([examples] * 5 + values())
        return odd, lambda: collator(examples)

    def forward(self) -> tuple[dict[str, Any], Call]:
        odd = self._odd(_OF_FORWARD)
        if isinstance(odd.get("attention_mask"), dict):  # ModernBERT's masks: the encoder's matter
            del odd["attention_mask"]
        return odd, lambda: self.model(**{"input_ids": TEXT, "labels": LABELS} | odd)

    def nelbo(self) -> tuple[dict[str, Any], Call]:
        odd = self._odd(_OF_NELBO)
        given = {"input_ids": CLEAN, "num_samples": 4} | odd
        return odd, lambda: nelbo(self.model, **given)

    def evaluate(self) -> tuple[dict[str, Any], Call]:
        measure = self.random.choice([evaluate_nelbo, masked_accuracy, critic_auroc])
        name = {evaluate_nelbo: "num_samples", masked_accuracy: "mask_rates"}.get(measure, "seed")
        odd = self._odd(["texts", "tokenizer", "batch_size", "seed", "progress", name])
        given = {
            "texts": [{"input_ids": row.tolist()} for row in CLEAN],
            "tokenizer": self.tokenizer,
            "progress": False,
        } | odd
        return odd, lambda: measure(self.model, **given)


def raw_error(call: Call) -> str | None:
    """Make a call; return the error where it is another library's, None where all is well."""
    try:
        call()
    except Exception as error:
        # A name that is nowhere, and a configuration's field, are told of in sentences of theirs.
        if raised_in(error, PACKAGE) or isinstance(error, OSError | StrictDataclassError):
            return None
        last = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in last if str(PACKAGE) in frame.filename][-1:]
        if ours and "self._callback(" in (ours[0].line or ""):
            return None  # the caller's own function, which fails in its own words
        place = f"{ours[0].filename.split('/')[-1]}:{ours[0].lineno}" if ours else "nowhere"
        return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:150]}"
    return None
