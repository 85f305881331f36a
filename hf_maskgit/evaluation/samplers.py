"""Samplers beside each other on one model: how likely their texts are, and how different."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ..core.argument_checks import check_flag, check_whole
from ..core.generation_config_maskgit import MaskGitGenerationConfig
from ..core.generation_output import OF_A_CALL, MaskGitGenerationOutput
from ..core.losses import forbid
from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..core.sampler_choices import check_blocks
from ..core.text_bound import forbidden_ids, predict_masked
from .batches import evaluating
from .progress import ProgressBar

# Of the call, not of a sampler.
OF_ALL = frozenset(
    (*OF_A_CALL, "num_tokens", "max_new_tokens", "seed", "generator", "generation_config")
)
PARTS = 8  # of the written tokens one in eight is hidden at a time


@dataclass(frozen=True)
class SamplerQuality:
    """What one sampler wrote.

    Attributes:
        options: of `generate`.
        distinct: different texts per prompt, in [1, num_texts], mean over the prompts.
        difference: share of the written places at which two texts of a prompt differ, in [0, 1],
            mean over pairs and prompts.
        nats_per_token: mean of -log p of a written token given the rest of its text, an eighth of
            the written tokens hidden at a time: a pseudo-likelihood under the model itself. Low is
            likely, and nothing is as likely as the same few words again: read it beside the
            other two.
        passes: of the denoiser per text, mean.
        standard_errors: of `difference`, `nats_per_token` and `passes`, by name: how far other
            texts of the same prompts would be from these.
        texts: (prompts, num_texts, L) long.
    """

    options: Mapping[str, Any]
    distinct: float
    difference: float
    nats_per_token: float
    passes: float
    standard_errors: Mapping[str, float]
    texts: Tensor


def compare_samplers(
    model: MaskGitForMaskedLM,
    input_ids: Tensor,
    samplers: Sequence[Mapping[str, Any]],
    attention_mask: Tensor | None = None,
    *,
    num_texts: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> Iterator[SamplerQuality]:
    """Fill the same texts with several samplers, and measure what each has written.

    Args:
        model: writes, and judges.
        input_ids: (B, L) long, texts with masks.
        samplers: options of `generate`, for each sampler.
        attention_mask: (B, L), 1 at real tokens; None means all are.
        num_texts: texts per row, at least 2.
        seed: of all texts.
        progress: show a progress bar.

    Yields:
        The measures, sampler by sampler.

    Raises:
        ValueError: for rows without a mask, no sampler, or what `generate` refuses.
    """
    check_whole("num_texts", num_texts, least=2)
    check_flag("progress", progress)
    asked: dict[str, Any] = {"num_return_sequences": num_texts, "seed": seed}
    asked |= {"return_dict_in_generate": True, "num_tokens": "fixed", "max_new_tokens": 0}
    written = input_ids == cast(int, model.config.mask_token_id)
    _check_samplers(model, samplers, num_texts, int(written.sum(1).max()))
    if not bool(written.any(1).all()):
        raise ValueError(
            "Samplers are compared by what they write into masks, and there are texts without one."
        )
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
    with ProgressBar("compare", len(samplers), "sampler", shown=progress) as told:
        for options in samplers:
            with evaluating(model):
                output = model.generate(input_ids, real, **{**asked, **options})
            told.update()
            yield _measured(
                model, options, cast(MaskGitGenerationOutput, output), num_texts, real, written
            )


def _measured(
    model: MaskGitForMaskedLM,
    options: Mapping[str, Any],
    output: MaskGitGenerationOutput,
    num_texts: int,
    real: Tensor,
    written: Tensor,
) -> SamplerQuality:
    texts = cast(Tensor, output.sequences).unflatten(0, (len(written), num_texts))
    passes = cast(Tensor, output.denoiser_passes).double().view(len(written), num_texts)
    nats = nats_of_texts(model, texts, real, written)
    weights = (written.sum(1) / written.sum()).double().cpu()
    return SamplerQuality(
        options,
        sum(len(row.unique(dim=0)) for row in texts) / len(texts),
        difference(texts, written),
        float(nats.sum() / (written.sum() * num_texts)),
        float(passes.mean()),
        {
            "difference": difference_error(texts, written),
            "nats_per_token": _error(nats / written.sum(1, keepdim=True).cpu(), weights),
            "passes": _error(passes.cpu(), torch.full_like(weights, 1 / len(weights))),
        },
        texts,
    )


def _check_samplers(
    model: MaskGitForMaskedLM,
    samplers: Sequence[Mapping[str, Any]],
    num_texts: int,
    most_masks: int,
) -> None:
    """Refuse a sampler before the first has worked.

    Raises:
        ValueError: for none, options that are the same for all, or what `generate` refuses.
    """
    if not samplers:
        raise ValueError("There is no sampler to compare; give options of `generate` for each.")
    for options in samplers:
        common = sorted(OF_ALL.intersection(options))
        if common:
            raise ValueError(
                f"`{common[0]}` is one for all samplers that are compared, and no option of "
                f"{dict(options)!r}."
            )
        resolved: Any = resolved_sampler(model, options, num_return_sequences=num_texts)
        check_blocks(resolved, most_masks)


def resolved_sampler(
    model: MaskGitForMaskedLM, options: Mapping[str, Any], **of_all: Any
) -> MaskGitGenerationConfig:
    """Return the options of a sampler as `generate` will understand them, none left out.

    Args:
        model: decodes by them.
        options: of `generate`, with or without the name of a `preset`.
        **of_all: options that are the same for all samplers.

    Raises:
        ValueError: as `generate` would.
    """
    named = {**options, **of_all}
    return model.resolve_options(None, named.pop("preset", None), named)


def difference(texts: Tensor, written: Tensor) -> float:
    """Return the share of written places at which two texts of a prompt differ.

    Args:
        texts: (B, T, L) long, T texts of B prompts.
        written: (B, L) bool.

    Returns:
        The mean over pairs of texts, then over prompts.
    """
    num_texts = texts.shape[1]
    pairs = _differences(texts, written)
    return float((pairs.sum((1, 2)) / (num_texts * (num_texts - 1))).mean())


def difference_error(texts: Tensor, written: Tensor) -> float:
    """Return the standard error of `difference` for these prompts, by leaving out text by text.

    Pairs share texts, so that their spread says too little: the jackknife of a prompt computes the
    mean anew without each of its texts in turn.

    Args:
        texts: (B, T, L) long, T texts of B prompts.
        written: (B, L) bool.

    Returns:
        The error, nan for fewer than three texts per prompt.
    """
    num_texts = texts.shape[1]
    if num_texts < 3:
        return float("nan")
    pairs = _differences(texts, written)
    left = (pairs.sum((1, 2))[:, None] - 2 * pairs.sum(2)) / ((num_texts - 1) * (num_texts - 2))
    variance = (num_texts - 1) * left.var(1, correction=0)  # of the mean of each prompt
    return float(variance.sum().sqrt() / len(texts))


def _differences(texts: Tensor, written: Tensor) -> Tensor:
    differs = texts[:, :, None] != texts[:, None]  # (B, T, T, L)
    count = written.sum(-1)[:, None, None].double()
    return (differs & written[:, None, None]).sum(-1) / count


def _error(values: Tensor, weights: Tensor) -> float:
    """Return the standard error of the weighted mean over prompts of (B, T) independent values."""
    return float((weights.square() * values.var(1) / values.shape[1]).sum().sqrt())


def nats_per_token(
    model: MaskGitForMaskedLM, texts: Tensor, attention_mask: Tensor, written: Tensor
) -> float:
    """Return the mean of -log p of a written token given the rest of its text.

    The arguments are those of `nats_of_texts`.
    """
    nats = nats_of_texts(model, texts, attention_mask, written)
    return float(nats.sum() / (written.sum() * texts.shape[1]))


@torch.no_grad()
def nats_of_texts(
    model: MaskGitForMaskedLM, texts: Tensor, attention_mask: Tensor, written: Tensor
) -> Tensor:
    """Return the sum of -log p of each text's written tokens, each given the rest of the text.

    Args:
        model: judges.
        texts: (B, T, L) long, T texts of B prompts.
        attention_mask: (B, L), 1 at real tokens.
        written: (B, L) bool.

    Returns:
        Nats (B, T) float64, on the CPU; of the written tokens every eighth is hidden together, so
        that a text takes eight passes.
    """
    forbidden = forbidden_ids(model.config)
    part = (written.long().cumsum(1) - 1) % PARTS
    nats = torch.zeros(texts.shape[:2], dtype=torch.float64)
    with evaluating(model):
        for row, (prompt, real) in enumerate(zip(texts, attention_mask, strict=True)):
            for number in range(PARTS):
                chosen = (written[row] & (part[row] == number)).expand(prompt.shape)
                if not bool(chosen.any()):
                    continue
                logits = predict_masked(model, prompt, real.expand(prompt.shape), chosen, False)
                shares = forbid(logits.float(), forbidden).log_softmax(-1)
                found = shares.gather(-1, prompt[chosen][:, None]).view(len(prompt), -1)
                nats[row] -= found.double().sum(1).cpu()
    return nats
