"""What holds for every encoder type of transformers, checked at tiny size and told in a table.

`python -m tests.support.support_matrix` runs all checks and writes the table of docs/encoders.md.
Types are taken from transformers itself, so that one that a newer release adds is checked unasked.
"""

import copy
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from hf_maskgit import DataCollatorForMaskGit, MaskGitConfig, MaskGitForMaskedLM, nelbo
from hf_maskgit.core.encoder_kinds import (
    CACHES_ATTENTION,
    PADDING_LEAKS,
    UNUSED_PARAMETERS,
    refusal,
)
from hf_maskgit.core.special_tokens import tokenizer_fields
from tests.support.cache_laws import caches, check_cache
from tests.support.project import ROOT
from tests.support.tiny import WIDE, randomise_vectors, roberta_tokenizer, word_tokenizer

PAGE = ROOT / "docs" / "encoders.md"
START, END = "<!-- table: python -m tests.support.support_matrix -->", "<!-- end of table -->"

TYPES = tuple(sorted(MODEL_FOR_MASKED_LM_MAPPING_NAMES))
LONGEST = 64
TEXTS = (
    "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10",
    "w11 w12 w13 w14 w15 w16",
    "w17 w18 w19 w20",
    "w21 w22 w23 w24 w25 w26",
)

# Settings by the names that encoders give them, and their tiny values.
TINY_SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "max_position_embeddings": LONGEST,
    **dict.fromkeys(("hidden_size", "d_model", "dim", "emb_dim"), 32),
    **dict.fromkeys(("embedding_size", "input_embedding_size", "embedding_rank"), 16),
    "output_embedding_size": 24,
    **dict.fromkeys(("num_hidden_layers", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_heads", "n_head"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("head_dim", "d_head"), 16),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "d_inner"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("sliding_window", "local_attention", "attention_window"), 8),
    **dict.fromkeys(("initializer_range", "init_std", "embed_init_std"), WIDE),
}
# Where the names do not tell: sizes of a type's own, and settings that its pretrained models have.
OF_ITS_OWN: dict[str, dict[str, Any]] = {
    "big_bird": {"attention_type": "original_full"},
    "deberta": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_biased_input": False,
    },
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": 16,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
    },
    "esm": {"position_embedding_type": "rotary"},
    "funnel": {
        "architectures": ["FunnelModel"],  # it has two bodies; this one goes with a masked-LM head
        "block_sizes": [1, 1, 1],
        "block_repeats": [1, 1, 1],
    },
    "layoutlm": {"max_2d_position_embeddings": 8},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 16},
    "neomme": {"per_layer_config": {0: {"sliding_window": 8}, 1: {"sliding_window": None}}},
    "perceiver": {"d_latents": 32, "num_latents": 4, "num_self_attends_per_block": 1},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8]},
    "roc_bert": {"pronunciation_vocab_size": 8, "shape_vocab_size": 8},
    "squeezebert": {"embedding_size": 32},
    "xlm": {"n_langs": 3},
    "xmod": {"languages": ["en_XX", "de_DE"], "default_language": "de_DE"},
    "yoso": {"conv_window": 3},
}


@dataclass(frozen=True)
class Row:
    """What the table says of one type."""

    kind: str
    support: str
    attention: str = ""
    attention_cache: str = ""
    gradient_checkpointing: str = ""
    bfloat16: str = ""
    resize: str = ""
    self_conditioning: str = ""
    note: str = ""

    def __str__(self) -> str:
        cells = [f"`{self.kind}`", *list(vars(self).values())[1:]]
        return f"| {' | '.join(cells)} |"


# --- tiny encoders -------------------------------------------------------------------------------


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerBase:
    """One id per word; padding is 1 where the type expects it there, and 0 elsewhere."""
    default = getattr(AutoConfig.for_model(kind), "pad_token_id", None)
    return roberta_tokenizer() if default == 1 else word_tokenizer()


def tiny_encoder_config(kind: str) -> PreTrainedConfig:
    """The type's default configuration, shrunk, without dropout, with `tokenizer_of`'s ids."""
    changes = _tiny_values(AutoConfig.for_model(kind).to_dict(), tokenizer_of(kind))
    return AutoConfig.for_model(kind, **{**changes, **copy.deepcopy(OF_ITS_OWN.get(kind, {}))})


def _tiny_values(values: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name in TINY_SIZES:
            changes[name] = TINY_SIZES[name]
        elif name.removesuffix("_id") in tokenizer.special_tokens_map:
            changes[name] = getattr(tokenizer, name)
        elif ("dropout" in name or "layerdrop" in name) and type(value) is float:
            changes[name] = 0.0
        elif name == "layer_types":
            changes[name] = value[-TINY_SIZES["num_hidden_layers"] :]
        elif isinstance(value, dict) and "model_type" in value:
            changes[name] = {"model_type": value["model_type"], **_tiny_values(value, tokenizer)}
    return changes


def tiny_generator(kind: str, **options: Any) -> MaskGitForMaskedLM:
    """A generator around a tiny encoder of that type, always the same one, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MaskGitForMaskedLM(_config(kind, **options))
        randomise_vectors(model)
    return model.eval()


def _config(kind: str, **options: Any) -> MaskGitConfig:
    fields = tokenizer_fields(tokenizer_of(kind))
    return MaskGitConfig(text_config=tiny_encoder_config(kind), **fields, **options)


def _rows(kind: str) -> list[Tensor]:
    return [torch.tensor(row) for row in tokenizer_of(kind)(list(TEXTS))["input_ids"]]


def _batch(kind: str, side: str = "right", **padding: Any) -> dict[str, Tensor]:
    """A training batch, padded on that side: the collator itself pads on the right alone."""
    collator = DataCollatorForMaskGit(tokenizer_of(kind), **padding)
    batch = collator([{"input_ids": row, "example_id": i} for i, row in enumerate(_rows(kind))])
    if side == "right":
        return batch
    padding_first = batch["attention_mask"].argsort(dim=1, stable=True)
    return {name: column.gather(1, padding_first) for name, column in batch.items()}


def _with_masks(kind: str) -> Tensor:
    """Framed texts of one length with three masks, (2, L)."""
    text = torch.stack([_rows(kind)[0], _rows(kind)[0]])
    text[1, 2] = 30
    text[0, [1, 4, 7]] = text[1, [3, 4, 8]] = tokenizer_of(kind).mask_token_id
    return text


# --- checks: each raises where the law does not hold ---------------------------------------------


def check_forward(kind: str) -> None:
    model, text = tiny_generator(kind), _with_masks(kind)
    logits = model(input_ids=text, attention_mask=torch.ones_like(text)).logits
    assert logits.shape == (*text.shape, TINY_SIZES["vocab_size"])
    assert bool(logits.isfinite().all())


def check_context_counts(kind: str) -> None:
    """Another word changes what is predicted at a mask beside it and at one further away."""
    model, text = tiny_generator(kind), _with_masks(kind)[:1]
    other = text.clone()
    other[0, 3] = 33
    with torch.no_grad():
        change = (model(input_ids=text).logits - model(input_ids=other).logits).abs().amax(-1)[0]
    assert float(change[[1, 4, 7]].min()) > 1e-4, change


def check_gradient(kind: str) -> None:
    _check_every_gradient(tiny_generator(kind), _batch(kind))


def _check_every_gradient(model: MaskGitForMaskedLM, batch: dict[str, Tensor]) -> None:
    model.train()(**batch).loss.backward()
    trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert [name for name, grad in trained.items() if grad is None] == []
    assert all(bool(grad.isfinite().all()) for grad in trained.values())
    assert sum(float(grad.abs().sum()) for grad in trained.values()) > 0


def check_frozen_weights_do_nothing(kind: str) -> None:
    model, text = tiny_generator(kind), _with_masks(kind)
    before = model(input_ids=text).logits
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.requires_grad and _is_named(kind, model, parameter):
                parameter.fill_(float("nan"))
    assert torch.equal(model(input_ids=text).logits, before)


def _is_named(kind: str, model: MaskGitForMaskedLM, parameter: Tensor) -> bool:
    """Whether the library froze it; fixed sinusoidal positions are frozen by transformers."""
    name = next(n for n, p in model.denoiser.named_parameters() if p is parameter)
    return any(re.search(UNUSED_PARAMETERS[k], name) for k in ("", kind) if k in UNUSED_PARAMETERS)


def check_head_at_positions(kind: str) -> None:
    model, text = tiny_generator(kind), _with_masks(kind)
    masked = text == model.config.mask_token_id
    full = model(input_ids=text).logits
    some = model(input_ids=text, masked_positions=masked).logits
    assert some.shape == (6, full.shape[-1])
    torch.testing.assert_close(some, full[masked], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(some, full[masked].roll(1, 0), atol=1e-2), "any order would pass"


def check_padding_and_loss(kind: str) -> None:
    """Loss of a padded batch and of its rows alone, and the likelihood bound likewise."""
    model = tiny_generator(kind).double()
    _check_loss_of_padded_rows(model, kind)
    bounds = []
    for side in ("right", "left"):
        text = pad_sequence(_rows(kind), True, model.config.pad_token_id, padding_side=side)
        generator = torch.Generator().manual_seed(0)
        mask = text != model.config.pad_token_id
        bounds.append(nelbo(model, text, mask.long(), num_samples=4, generator=generator).nats)
    assert bool((bounds[0] > 0).all())
    torch.testing.assert_close(bounds[0], bounds[1], rtol=1e-6, atol=0)


def _check_loss_of_padded_rows(model: MaskGitForMaskedLM, kind: str) -> None:
    for side in ("right", "left"):
        batch, wide = _batch(kind, side), _batch(kind, side, pad_to_multiple_of=32)
        assert wide["input_ids"].shape[1] == 32 > batch["input_ids"].shape[1]
        count = (batch["labels"] != -100).sum()
        alone = 0.0
        for i, real in enumerate(batch["attention_mask"].bool()):
            row = {name: value[i : i + 1, real] for name, value in batch.items()}
            alone += model(**row, num_items_in_batch=count).loss.item()
        for padded in (batch, wide):
            assert abs(model(**padded).loss.item() - alone) < 1e-6 * alone


def check_padding_as_told(kind: str) -> None:
    """The library's word on what padding does to a type is right of the plain encoder."""
    encoder, row = tiny_generator(kind).double().denoiser, _rows(kind)[1][None]
    pad = tokenizer_of(kind).pad_token_id
    wide = torch.nn.functional.pad(row, (0, 20), value=pad)
    mask = torch.nn.functional.pad(torch.ones_like(row), (0, 20))
    known = {"attention_mask": mask} if kind != "fnet" else {}
    padded = encoder(input_ids=wide, **known).logits[:, : row.shape[1]]
    same = torch.allclose(padded, encoder(input_ids=row).logits, atol=1e-5)
    assert same == (kind not in PADDING_LEAKS)


def check_padding_and_generation(kind: str) -> None:
    """A row gives the same text alone and in a padded batch.

    In float64, so that the last bits of a padded matrix product turn no draw.
    """
    _check_generation_of_padded_rows(tiny_generator(kind).double(), kind)


def _check_generation_of_padded_rows(model: MaskGitForMaskedLM, kind: str) -> None:
    rows, pad = _rows(kind), model.config.pad_token_id
    for row in rows:
        row[2] = model.config.mask_token_id
    seeds, options = [1, 2, 3, 4], {"max_new_tokens": 3, "steps": 3}
    alone = [
        model.generate(row[None], seed=[seed], **options)[0].tolist()
        for row, seed in zip(rows, seeds, strict=True)
    ]
    for side in ("right", "left"):
        batch = pad_sequence(rows, True, pad, padding_side=side)
        together = model.generate(batch, (batch != pad).long(), seed=seeds, **options)
        for i, text in enumerate(alone):
            filler = [pad] * (batch.shape[1] - len(rows[i]))
            assert together[i].tolist() == (filler + text if side == "left" else text + filler)


def check_generation(kind: str) -> None:
    """Masks become words and nothing else changes; a seed decides all."""
    model, text = tiny_generator(kind), _with_masks(kind)
    masked = text == model.config.mask_token_id
    options = {"anneal_temperature": False, "num_return_sequences": 4}
    out = model.generate(text, seed=1, **options)
    known = ~masked.repeat_interleave(4, 0)
    assert torch.equal(out[known], text.repeat_interleave(4, 0)[known])
    words = set(range(model.config.num_token_ids)) - set(tokenizer_of(kind).all_special_ids)
    assert set(out[~known].tolist()) <= words
    assert len(out.unique(dim=0)) > 2, "draws of three words were all equal"
    assert torch.equal(out, model.generate(text, seed=1, **options))


def check_longest_text(kind: str) -> None:
    model, rows = tiny_generator(kind), _rows(kind)
    limit = model.max_positions
    length = 2 * LONGEST if limit is None else limit
    first, last = int(rows[0][0]), int(rows[0][-1])
    text = torch.tensor([[first, *[20] * (length - 3), model.config.mask_token_id, last]])
    assert model.generate(text, steps=1).shape == (1, length)
    assert limit is None or limit >= LONGEST - 2


def check_saved_model(kind: str) -> None:
    model, text = tiny_generator(kind), _with_masks(kind)
    expected = model(input_ids=text).logits
    for loaded in _saved_and_loaded(model):
        assert torch.equal(loaded(input_ids=text).logits, expected)


def _saved_and_loaded(model: MaskGitForMaskedLM) -> list[MaskGitForMaskedLM]:
    """The model by each of the Auto classes; nothing of it is missing."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for auto in (MaskGitForMaskedLM, AutoModelForMaskedLM, AutoModelForCausalLM):
            loaded, info = auto.from_pretrained(folder, output_loading_info=True)
            assert type(loaded) is MaskGitForMaskedLM
            assert not info["missing_keys"]
            assert not info["unexpected_keys"]
            found.append(loaded)
    return found


def check_plain_checkpoint(kind: str) -> None:
    """A masked-LM checkpoint of the type keeps every logit; nothing of it is missing."""
    encoder, text = tiny_generator(kind).denoiser, _with_masks(kind)
    expected = encoder(input_ids=text).logits
    with tempfile.TemporaryDirectory() as folder:
        encoder.save_pretrained(folder)
        loaded, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"]
        model = MaskGitForMaskedLM.from_encoder(folder, tokenizer=tokenizer_of(kind))
    assert torch.equal(loaded(input_ids=text).logits, expected)
    assert torch.equal(model(input_ids=text).logits, expected)


def check_headless_checkpoint(kind: str) -> None:
    """The body of the type, saved alone, is found whole; only a head is made anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = AutoModel.from_config(tiny_encoder_config(kind))
        randomise_vectors(body)
    with tempfile.TemporaryDirectory() as folder:
        body.save_pretrained(folder)
        model = MaskGitForMaskedLM.from_encoder(folder, tokenizer=tokenizer_of(kind))
    saved, own = dict(body.named_parameters()), dict(model.denoiser.base_model.named_parameters())
    assert own
    assert all(torch.equal(saved[name], own[name]) for name in own)
    model(**_batch(kind)).loss.backward()


def check_dtype(kind: str) -> None:
    """The dtype asked for decides, not the one an encoder's configuration carries."""
    config = tiny_generator(kind).config
    config.text_config.dtype = torch.float16
    assert {p.dtype for p in MaskGitForMaskedLM(config).parameters()} == {torch.float32}
    with tempfile.TemporaryDirectory() as folder:
        tiny_generator(kind).to(torch.bfloat16).save_pretrained(folder)
        for dtype in (torch.float32, torch.bfloat16):
            model = MaskGitForMaskedLM.from_pretrained(folder, dtype=dtype)
            assert {p.dtype for p in model.parameters()} == {dtype}
        model = MaskGitForMaskedLM.from_pretrained(folder)
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def check_gradient_checkpointing(kind: str) -> None:
    """Where the type has it, it changes no gradient."""
    _check_gradient_checkpointing(tiny_generator(kind), _batch(kind))


def _check_gradient_checkpointing(model: MaskGitForMaskedLM, batch: dict[str, Tensor]) -> None:
    if not model.train().supports_gradient_checkpointing:
        return
    gradients = []
    for enabled in (False, True):
        if enabled:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        )
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def check_self_conditioning(kind: str) -> None:
    """Where the type can have it: without effect at first, exact ever after."""
    if not conditions_on_itself(kind):
        return
    plain, text = tiny_generator(kind), _with_masks(kind)
    fresh = MaskGitForMaskedLM(_config(kind, self_cond=True)).eval()
    fresh.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(fresh(input_ids=text, self_condition=True).logits, plain(text).logits)
    assert torch.equal(fresh.generate(text, seed=1, steps=2), plain.generate(text, seed=1, steps=2))
    model = tiny_generator(kind, self_cond=True)  # its projection is not zero
    first = model(input_ids=text, output_last_hidden_state=True)
    second = model(input_ids=text, previous_hidden_states=first.last_hidden_state).logits
    assert not torch.allclose(second, first.logits, atol=1e-2)
    assert torch.equal(second, model(input_ids=text, self_condition=True).logits)
    for loaded in _saved_and_loaded(model):
        logits = loaded(input_ids=text, self_condition=True).logits
        torch.testing.assert_close(logits, second, atol=1e-4, rtol=1e-4)
    _check_every_gradient(model, _batch(kind))
    model = tiny_generator(kind, self_cond=True, self_cond_train_prob=1.0)
    _check_gradient_checkpointing(model, _batch(kind))
    model = tiny_generator(kind, self_cond=True).double()
    _check_loss_of_padded_rows(model, kind)
    _check_generation_of_padded_rows(model, kind)


def check_critics(kind: str) -> None:
    """A critic of either sort learns, judges a padded row as alone, and travels."""
    separate = {"token_critic": "separate", "critic_config": tiny_encoder_config(kind)}
    critic: dict[str, Any]
    for critic in ({"token_critic": "self"}, separate):
        critic["initializer_range"] = WIDE  # of its head
        _check_every_gradient(tiny_generator(kind, **critic), _batch(kind))
        model = tiny_generator(kind, **critic).double()
        rows, pad = _rows(kind), model.config.pad_token_id
        alone = [model.score_tokens(row[None], row[None] * 0 + 1, row[None] > 4) for row in rows]
        text = pad_sequence(rows, True, pad)
        padded = text, (text != pad).long(), text > 4
        scores = model.score_tokens(*padded)
        assert bool(scores.isfinite().all())
        torch.testing.assert_close(scores, torch.cat(alone), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(scores, torch.cat(alone[::-1]), atol=1e-2), "any would pass"
        for loaded in _saved_and_loaded(model):
            torch.testing.assert_close(loaded.score_tokens(*padded), scores, atol=1e-5, rtol=1e-5)


def check_attention_cache(kind: str) -> None:
    """The library's word on whether a pass can compute a few positions is right."""
    if kind in CACHES_ATTENTION:
        check_cache(tiny_generator(kind), _rows(kind))
    elif kind in CONFIG_MAPPING_NAMES:  # of a type of one's own the library knows nothing
        assert not caches(tiny_generator(kind), _rows(kind)), "it could have one"


CHECKS: tuple[Callable[[str], None], ...] = (
    check_forward,
    check_context_counts,
    check_gradient,
    check_frozen_weights_do_nothing,
    check_head_at_positions,
    check_padding_as_told,
    check_padding_and_loss,
    check_padding_and_generation,
    check_generation,
    check_longest_text,
    check_saved_model,
    check_plain_checkpoint,
    check_headless_checkpoint,
    check_dtype,
    check_gradient_checkpointing,
    check_self_conditioning,
    check_critics,
    check_attention_cache,
)


# --- what differs from type to type --------------------------------------------------------------


def computes_in_bfloat16(kind: str) -> bool:
    model = tiny_generator(kind).to(torch.bfloat16)
    try:
        model(**_batch(kind)).loss.backward()
    except RuntimeError:
        return False
    return all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.requires_grad)


def conditions_on_itself(kind: str) -> bool:
    try:
        tiny_generator(kind, self_cond=True)
    except ValueError as refused:
        if "Set self_cond=False" not in str(refused):
            raise
        return False
    return True


def can_be_resized(kind: str) -> bool:
    """A vocabulary that has grown keeps its old logits and survives saving."""
    model, text = tiny_generator(kind), _with_masks(kind)
    before = model(input_ids=text).logits
    try:
        model.resize_token_embeddings(48)
    except NotImplementedError:
        return False
    after = model(input_ids=text).logits
    assert after.shape[-1] == 48
    torch.testing.assert_close(after[..., : before.shape[-1]], before, atol=1e-4, rtol=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = MaskGitForMaskedLM.from_pretrained(folder)
    assert torch.equal(loaded(input_ids=text).logits, after)
    return True


def frozen_names(kind: str) -> list[str]:
    """What the library keeps from training, as the table names it."""
    model = tiny_generator(kind)
    found = set()
    for name, parameter in model.denoiser.named_parameters():
        for of in ("", kind):
            match = re.search(UNUSED_PARAMETERS.get(of, "$^"), name)
            if match and not parameter.requires_grad:
                found.add(match.group().strip("."))
    return sorted(found)


def run_checks(kind: str) -> None:
    """Run every check of a type that is not refused.

    Raises:
        AssertionError: naming the type and the check that failed.
    """
    for check in CHECKS:
        try:
            check(kind)
        except Exception as fault:
            raise AssertionError(f"{kind}: {check.__name__} failed: {fault}") from fault


def row_of(kind: str) -> Row:
    """Check one type and say what the table says of it.

    Raises:
        AssertionError: when a check fails.
    """
    reason = refusal(tiny_encoder_config(kind))
    if reason:
        return Row(kind, "refused", note=reason)
    run_checks(kind)
    model = tiny_generator(kind)
    notes = [PADDING_LEAKS[kind]] if kind in PADDING_LEAKS else []
    frozen = frozen_names(kind)
    if frozen:
        notes.append("frozen: " + ", ".join(f"`{name}`" for name in frozen))
    return Row(
        kind,
        "without padding" if kind in PADDING_LEAKS else "yes",
        "sdpa" if model.denoiser._supports_sdpa else "eager",
        _yes(kind in CACHES_ATTENTION),
        _yes(model.supports_gradient_checkpointing),
        _yes(computes_in_bfloat16(kind)),
        _yes(can_be_resized(kind)),
        _yes(conditions_on_itself(kind)),
        "; ".join(notes),
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


# --- the table -----------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    head = (
        f"Checked with transformers {transformers.__version__}.\n\n"
        "| type | supported | attention | attention cache | gradient checkpointing | bfloat16 "
        "| resize | self-conditioning | notes |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *map(str, rows)])


def table_of_page() -> str:
    page = PAGE.read_text()
    return page[page.index(START) + len(START) : page.index(END)].strip()


def main() -> None:
    rows = [row_of(kind) for kind in tqdm(TYPES)]
    page = PAGE.read_text()
    before, after = page[: page.index(START)], page[page.index(END) :]
    PAGE.write_text(f"{before}{START}\n\n{table(rows)}\n\n{after}")


if __name__ == "__main__":
    main()
