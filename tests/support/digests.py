"""Digests of some thousand results, to show that a change of the code leaves every bit as it was.

    python -m tests.support.digests before.json               # in the checkout before the change
    python -m tests.support.digests after.json before.json    # after it: tells what differs

Each result of `generate`, of the collator, of the losses with their gradients and of `nelbo` is
told by a hash, each refusal by its sentence. Hashes of two machines are not to be compared.
"""

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM, nelbo
from tests.support.combinations import LEGAL, choices
from tests.support.tiny import encoder_config, tiny_model, word_tokenizer

Results = dict[str, str]
Call = tuple[MaskGitForMaskedLM, dict[str, Any]]

FIRST, LAST, PAD = 2, 3, 0  # what the tokenizer of the tests puts around a text, and behind it
STEPS, MORE_STEPS = (5,), (4, 12)
# How tokens are drawn; every kind of call runs with two of them, the two plainest with all.
DRAWING: tuple[dict[str, Any], ...] = (
    {},
    {"choice_temperature": 1.5},
    {"do_sample": False},
    {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.3},
    {"noise_level_scale": 0.0, "anneal_temperature": False},
)
FEW_DRAWING = (DRAWING[0], DRAWING[2], DRAWING[3])
PLAINEST = ("infill", "prompt")

# All names, written down and not read from the tables: a name that is lost shows as a refusal.
ORDERS = "top_probability margin entropy confidence critic random left_to_right".split()
PACES = "schedule ancestral first_hitting threshold entropy_bound speculative".split()
REMASKS = "never confidence critic p2 remdm_cap remdm_rescale remdm_conf remdm_loop".split()
PRESETS = "maskgit mdlm llada dream remdm p2 eb fast_dllm x_transformers fast".split()


def digest(tensors: Iterable[Tensor]) -> str:
    """Hash the bytes of tensors, in their order."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().numpy().tobytes())
    return found.hexdigest()


def told(call: Callable[[], Iterable[Tensor]]) -> str:
    """What came of a call: the hash of its result, or its refusal."""
    try:
        return digest(call())
    except Exception as refusal:
        return f"{type(refusal).__name__}: {refusal}"


def generated(model: MaskGitForMaskedLM, **options: Any) -> str:
    """What came of `generate`, its history and its counts included."""

    def call() -> list[Tensor]:
        out: Any = model.generate(
            seed=5, return_dict_in_generate=True, output_history=True, **options
        )
        texts = [out.sequences, out.reveal_steps, out.reveal_log_probabilities]
        return [*texts, out.denoiser_passes, out.critic_passes, out.history]

    return told(call)


class Inputs:
    """Texts of every kind: rows to fill and to continue, with padding on either side."""

    def __init__(self, mask_id: int, size: int) -> None:
        self.draws = torch.Generator().manual_seed(1)
        self.rows = torch.randint(7, size, (3, 14), generator=self.draws)
        self.rows[:, 2:9] = mask_id
        self.rows[1, 10:12] = mask_id
        self.real = torch.ones_like(self.rows)
        self.padded_rows, self.padded_real = self.rows.clone(), self.real.clone()
        for row, columns in ((0, slice(12, None)), (2, slice(None, 1))):
            self.padded_rows[row, columns], self.padded_real[row, columns] = PAD, 0
        self.prompts = torch.randint(7, size, (4, 9), generator=self.draws)
        self.prompts[:, 0], self.prompts[:, -1] = FIRST, LAST
        self.prompts_real = torch.ones_like(self.prompts)
        self.prompts[1, 5], self.prompts[2, 3] = LAST, FIRST
        for row, columns in ((1, slice(6, None)), (2, slice(None, 3))):
            self.prompts[row, columns], self.prompts_real[row, columns] = PAD, 0


def calls(inputs: Inputs, models: dict[str, MaskGitForMaskedLM]) -> dict[str, Call]:
    """One call of `generate` for each kind of thing it can be asked for."""
    fill = {"input_ids": inputs.rows, "attention_mask": inputs.real}
    padded = {"input_ids": inputs.padded_rows, "attention_mask": inputs.padded_real}
    prompt = {"input_ids": inputs.prompts, "attention_mask": inputs.prompts_real}
    types = (torch.arange(9) > 4).long().expand(4, -1)
    model, negative = models["model"], inputs.prompts[:1, :5].clone()
    allowed = {9: [10, 11, 12], 12: [13, 14]}
    guided = {"guidance_scale": 2.0, "negative_prompt_ids": negative}
    forbidden: dict[str, Any] = {"suppress_tokens": [9, 10, 11], "bad_words_ids": [[12]]}
    return {
        "infill": (model, fill),
        "padded infill": (model, padded),
        "prompt": (model, {**prompt, "max_new_tokens": 9}),
        "prompt with types": (model, {**prompt, "max_new_tokens": 7, "token_type_ids": types}),
        "nothing": (model, {"max_new_tokens": 12, "num_return_sequences": 2}),
        "guided infill": (model, {**padded, "guidance_scale": 1.7}),
        "guided prompt": (model, {**prompt, "max_new_tokens": 8, **guided}),
        "allowed": (model, {**prompt, "max_new_tokens": 8, "allowed_token_ids": allowed}),
        "allowed list": (model, {**padded, "allowed_token_ids": list(range(8, 20))}),
        "suppressed": (model, {**fill, **forbidden}),
        "looking back": (models["looking"], padded),
        "separate critic": (models["separate"], padded),
        "stops": (model, {**prompt, "max_new_tokens": 8, "eos_token_id": [LAST, 29, 33]}),
    }


def samplers(inputs: Inputs, models: dict[str, MaskGitForMaskedLM]) -> Results:
    """Every legal sampler in every kind of call."""
    found = {}
    for kind, (model, asked) in calls(inputs, models).items():
        plain = kind in PLAINEST
        for combination, block, drawing, steps in product(
            LEGAL,
            (None, 3),
            DRAWING if plain else FEW_DRAWING,
            MORE_STEPS if plain else STEPS,
        ):
            options = {**choices(combination), **drawing, "steps": steps}
            if block is not None:
                options["block_length"] = block
            key = json.dumps([kind, combination, options])
            found[key] = generated(model, **asked, **options)
    return found


def refusals_and_presets(inputs: Inputs, model: MaskGitForMaskedLM) -> Results:
    """All names with each other, most of which are refused; and the samplers of the literature."""
    found = {}
    further: tuple[dict[str, Any], ...] = (
        {},
        {"do_sample": False},
        {"choice_temperature": 1.0},
        {"p2_planner": "critic"},
    )
    names = ([None, *ORDERS], [None, *PACES], [None, *REMASKS])
    for order, pace, remask, more in product(*names, further):
        options = {"order": order, "pace": pace, "remask": remask, **more}
        key = json.dumps(["pairs", options])
        found[key] = generated(model, input_ids=inputs.rows[:1], steps=4, **options)
    padded = {"input_ids": inputs.padded_rows, "attention_mask": inputs.padded_real}
    for name in PRESETS:
        found[json.dumps(["preset", name])] = generated(model, **padded, preset=name)
    return found


def losses(inputs: Inputs, models: dict[str, MaskGitForMaskedLM]) -> Results:
    """Masked batches of every kind, and each model's losses and gradients on them."""
    found, tokenizer = {}, word_tokenizer()
    examples = [
        {
            "input_ids": [
                FIRST,
                *torch.randint(7, 30, (length,), generator=inputs.draws).tolist(),
                LAST,
            ],
            "example_id": number,
        }
        for number, length in enumerate([3, 9, 5, 7])
    ]
    for kind in product(
        ("linear", "cosine"), (True, False), ("exact_count", "bernoulli"), (0.5, 0.0, 1.0)
    ):
        schedule, weighted, choice, corruption = kind
        collator = DataCollatorForMaskGit(
            tokenizer,
            schedule,
            use_simple_mdlm_loss_weight=weighted,
            choice=choice,
            corruption_prob=corruption,
            seed=3,
        )
        batch = collator(examples)
        found[json.dumps(["collator", *kind])] = digest(batch[key] for key in sorted(batch))
        for name, model in models.items():
            torch.manual_seed(0)  # whether a text looks back, and what a critic sees, are drawn
            out = model(**batch)
            model.zero_grad()
            out.loss.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            parts = [out.loss, out.denoiser_loss, out.critic_loss, out.logits, *gradients]
            found[json.dumps(["loss", name, *kind])] = digest(parts)
    return found


def bounds(inputs: Inputs, models: dict[str, MaskGitForMaskedLM]) -> Results:
    """What `nelbo` measures."""
    found = {}
    for name, model in models.items():
        draws = torch.Generator().manual_seed(0)
        bound = nelbo(model, inputs.prompts, inputs.prompts_real, num_samples=8, generator=draws)
        found[f"nelbo {name}"] = digest([bound.nats, bound.std_error, bound.num_tokens])
    return found


def results() -> Results:
    """Everything, in a fixed order: the inputs come from one generator."""
    models = {
        "model": tiny_model(token_critic="self"),
        "looking": tiny_model(seed=3, token_critic="self", self_cond=True),
        "separate": tiny_model(
            seed=4, token_critic="separate", critic_config=encoder_config("bert")
        ),
    }
    config = models["model"].config
    inputs = Inputs(int(config.mask_token_id or 0), config.get_text_config().vocab_size)
    return {
        **samplers(inputs, models),
        **refusals_and_presets(inputs, models["model"]),
        **losses(inputs, models),
        **bounds(inputs, models),
    }


def differences(before: Results, after: Results) -> list[str]:
    """The cases of both that came out otherwise, and the cases that only one has."""
    return [
        f"{key}\n  before: {before.get(key, 'not asked')}\n  after: {after.get(key, 'not asked')}"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]


def main() -> None:
    """Write the digests into the first file that is named, and compare them with the second's."""
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)  # sums in one order
    file, *earlier = map(Path, sys.argv[1:])
    found = results()
    file.write_text(json.dumps(found, indent=0), encoding="utf-8")
    refused = sum(": " in value for value in found.values())
    sys.stdout.write(f"{len(found):,} cases, {refused:,} of them refused.\n")
    if earlier:
        different = differences(json.loads(earlier[0].read_text(encoding="utf-8")), found)
        sys.stdout.write("\n".join([*different, f"{len(different):,} of them differ.\n"]))
        sys.exit(bool(different))


if __name__ == "__main__":
    main()
