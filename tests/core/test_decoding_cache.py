"""`generate` with an attention cache: which passes are full, what is read, what is exact."""

import contextlib

import pytest
import torch
from peft import LoraConfig, get_peft_model

from hf_maskgit.core import decoding_cache
from hf_maskgit.core.attention_cache import NAME
from hf_maskgit.core.decoding_cache import Denoiser
from hf_maskgit.core.token_pattern import TokenPattern
from tests.core.test_threads import in_threads
from tests.support.slow_cache import SlowCachedDenoiser
from tests.support.support_matrix import tiny_generator, tokenizer_of
from tests.support.tiny import tiny_model

LENGTH, MASKS = 24, slice(4, 22)


def text_of(model, rows=3):
    """Rows of 24, 23, 22 ... tokens with 18 masks or fewer; padding behind, and a word between."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(6, 30, (rows, LENGTH), generator=generator)
    text[:, MASKS] = model.config.mask_token_id
    text[-1, 7] = 9
    real = torch.arange(LENGTH) < LENGTH - torch.arange(rows)[:, None] * 3
    return text.masked_fill(~real, model.config.pad_token_id), real.long()


@pytest.fixture
def passes(monkeypatch):
    """What the denoiser was asked: rows and, of a partial pass, how many positions of each row."""
    seen = []
    ask = Denoiser.ask

    def watched(self, model, rows, text, positions, active=None):
        seen.append((rows.tolist(), None if active is None else active.there.sum(1).tolist()))
        return ask(self, model, rows, text, positions, active)

    monkeypatch.setattr(Denoiser, "ask", watched)
    return seen


@pytest.fixture
def warned(monkeypatch):
    told = []
    monkeypatch.setattr(decoding_cache.logger, "warning_once", told.append)
    return told


def row_text(masks=12):
    return torch.tensor([[2, 6, 7, 8, *[4] * masks, 9, 3]])


def test_the_first_pass_of_each_block_is_full_and_every_third(passes):
    """12 masks in two blocks of 6, one revealed in each pass: the block alone is read."""
    tiny_model().generate(row_text(), block_length=6, steps=12, cache_refresh_interval=3, seed=0)
    block = [None, [6], [6], None, [3], [3]]
    assert [active for _, active in passes] == block * 2


def test_without_blocks_the_masks_are_read_and_what_was_revealed_since(passes):
    options = {"steps": 6, "use_cache": True, "cache_refresh_interval": 4}
    tiny_model().generate(row_text(), **options, seed=0)
    assert [active for _, active in passes] == [None, [12], [12], [12], None, [4]]


@pytest.mark.wide
def test_it_is_on_with_blocks_alone_unless_it_is_asked_for(passes):
    model = tiny_model()

    def partial_passes(**options):
        passes.clear()
        model.generate(row_text(), steps=6, seed=0, **options)
        return sum(active is not None for _, active in passes)

    assert partial_passes() == 0
    assert partial_passes(block_length=6) > 0
    assert partial_passes(block_length=6, use_cache=False) == 0
    assert partial_passes(block_length=6, cache_refresh_interval=1) == 0
    assert partial_passes(use_cache=True) > 0
    model.generation_config.use_cache = False
    assert partial_passes(block_length=6) == 0


@pytest.mark.parametrize(
    "kind", ["bert", *(pytest.param(k, marks=pytest.mark.slow) for k in ("modernbert", "roberta"))]
)
@pytest.mark.parametrize(
    "options",
    [
        {"block_length": 5, "steps": 12},
        {"block_length": 7, "steps": 9, "order": "random", "cache_refresh_interval": 2},
        {"steps": 8, "use_cache": True, "remask": "confidence"},
        {"pace": "threshold", "confidence_threshold": 0.6, "block_length": 6},
    ],
    ids=str,
)
def test_a_text_is_that_of_a_slow_cache(kind, options, monkeypatch):
    """Every row for itself, whole texts, kept keys put in their place: the same words."""
    model = tiny_generator(kind).double()
    text, real = text_of(model)
    fast = model.generate(text, real, seed=1, **options)
    monkeypatch.setattr(decoding_cache, "CachedDenoiser", SlowCachedDenoiser)
    assert torch.equal(fast, model.generate(text, real, seed=1, **options))


@pytest.mark.wide
def test_the_slow_cache_is_not_the_uncached_text():
    """Else the test above would say little."""
    model = tiny_generator("modernbert").double()
    text, real = text_of(model, rows=4)
    options = {"seed": 1, "steps": 18, "block_length": 9, "anneal_temperature": False}
    cached = model.generate(text, real, cache_refresh_interval=9, **options)
    assert not torch.equal(cached, model.generate(text, real, use_cache=False, **options))


@pytest.mark.wide
def test_an_interval_of_one_is_exact():
    model = tiny_generator("bert")
    text, real = text_of(model)
    options = {"seed": 2, "steps": 12, "block_length": 5, "return_dict_in_generate": True}
    exact = model.generate(text, real, use_cache=True, cache_refresh_interval=1, **options)
    plain = model.generate(text, real, use_cache=False, **options)
    assert torch.equal(exact.sequences, plain.sequences)
    assert torch.equal(exact.reveal_log_probabilities, plain.reveal_log_probabilities)


@pytest.mark.wide
@pytest.mark.parametrize("refresh", ["interval", "adaptive"])
def test_a_row_is_what_it_is_alone(refresh, passes):
    """Rows are refreshed each by itself: two may want a full pass while the third does not."""
    model = tiny_generator("bert").double()
    text, real = text_of(model)
    text[1, 5:9] = 11  # so that its blocks come to an end earlier
    options = {
        "pace": "threshold",
        "confidence_threshold": 0.5,
        "block_length": 4,
        "cache_refresh": refresh,
    }
    if refresh == "adaptive":
        options["cache_drift"] = 0.02
    together = model.generate(text, real, seed=[1, 2, 3], **options)
    assert {len(rows) for rows, _ in passes} > {3}, "all rows were always in one pass"
    for i in range(3):
        alone = model.generate(text[i : i + 1], real[i : i + 1], seed=[i + 1], **options)
        assert torch.equal(alone[0], together[i])


@pytest.mark.wide
def test_a_drift_beyond_the_bound_makes_the_next_pass_a_full_one(passes):
    model = tiny_model()
    options = {"block_length": 6, "steps": 12, "cache_refresh": "adaptive", "seed": 0}
    model.generate(row_text(), cache_drift=0, **options)
    assert [active for _, active in passes] == [None, [6], None, [4], None, [2]] * 2
    passes.clear()
    model.generate(row_text(), cache_drift=1, **options)
    assert [active for _, active in passes] == [None, *[[6]] * 5] * 2


@pytest.mark.parametrize("negative", [None, torch.tensor([[2, 9, 3]])])
def test_guidance_keeps_a_cache_of_each_of_its_texts(negative, passes, monkeypatch):
    model = tiny_model().double()
    text = torch.tensor([[2, 6, 7, 8, 3]])
    options = {
        "max_new_tokens": 8,
        "guidance_scale": 2.0,
        "negative_prompt_ids": negative,
        "block_length": 4,
        "steps": 8,
        "seed": 0,
    }
    fast = model.generate(text, **options)
    assert [active for _, active in passes] == [None, None, *[[4]] * 6] * 2
    monkeypatch.setattr(decoding_cache, "CachedDenoiser", SlowCachedDenoiser)
    assert torch.equal(fast, model.generate(text, **options))


@pytest.mark.wide
def test_self_conditioning_keeps_the_states_of_what_is_not_read():
    """Without effect at first, it changes no cached text; with some, every mask is filled."""
    plain = tiny_model().double()
    fresh = tiny_model(self_cond=True).double()
    fresh.load_state_dict(plain.state_dict(), strict=False)
    options = {"block_length": 4, "steps": 12, "seed": 0}
    text = row_text()
    torch.nn.init.zeros_(fresh.self_conditioning.weight)
    expected = plain.generate(text, **options)
    assert torch.equal(fresh.generate(text, **options), expected)
    torch.nn.init.normal_(fresh.self_conditioning.weight, std=0.5)
    conditioned = fresh.generate(text, **options)
    assert not bool((conditioned == 4).any())
    uncached = fresh.generate(text, use_cache=True, cache_refresh_interval=1, **options)
    assert torch.equal(uncached, fresh.generate(text, use_cache=False, **options))


@pytest.mark.parametrize("critic", ["self", "separate"])
def test_a_critic_reads_the_whole_text(critic):
    body = {"critic_config": tiny_model().config.text_config} if critic == "separate" else {}
    model = tiny_model(token_critic=critic, **body)
    out = model.generate(
        row_text(),
        order="critic",
        remask="critic",
        use_cache=True,
        steps=6,
        seed=0,
        return_dict_in_generate=True,
    )
    assert not bool((out.sequences == 4).any())
    assert int(out.critic_passes) > 0


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_it_was_afterwards(fails):
    model = tiny_model()
    before = [(name, id(module)) for name, module in model.named_modules()]
    implementation = model.denoiser.config._attn_implementation
    hooks = [len(module._forward_hooks) for module in model.modules()]

    def stop(step, state):
        if fails and step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError) if fails else contextlib.nullcontext():
        model.generate(row_text(), block_length=6, steps=12, callback_on_step_end=stop, seed=0)
    assert model.denoiser.config._attn_implementation == implementation != NAME
    assert [(name, id(module)) for name, module in model.named_modules()] == before
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert model(row_text(), masked_positions=row_text() == 4).logits.isfinite().all()


@pytest.mark.wide
def test_two_threads_on_one_model():
    model = tiny_model()
    options = {"block_length": 4, "steps": 12}
    texts = [row_text(), row_text(8), row_text()]
    calls = [
        lambda text=text, i=i: model.generate(text, seed=i, **options)
        for i, text in enumerate(texts)
    ]
    expected = [call() for call in calls]
    assert all(map(torch.equal, in_threads(calls), expected))


def test_an_encoder_that_cannot_does_without_and_says_so_where_it_was_asked(passes, warned):
    model, mask = tiny_generator("deberta-v2"), tokenizer_of("deberta-v2").mask_token_id
    text = torch.tensor([[2, 6, *[mask] * 8, 3]])
    options = {"block_length": 4, "steps": 4, "seed": 0}
    plain = model.generate(text, use_cache=False, **options)
    assert torch.equal(model.generate(text, **options), plain)
    assert warned == []
    assert torch.equal(model.generate(text, use_cache=True, **options), plain)
    assert warned == [
        "use_cache=True has no effect on this model: the attention of 'deberta-v2' is not computed "
        "through the interface of transformers. Every pass reads the whole text."
    ]
    assert passes
    assert all(active is None for _, active in passes)


@pytest.mark.wide
def test_token_types_and_closing_tokens_go_with_their_positions(monkeypatch):
    model = tiny_generator("bert").double()
    text = torch.tensor([[2, 6, 7, 8, 3], [2, 9, 3, 0, 0]])
    options = {
        "attention_mask": (text != 0).long(),
        "token_type_ids": torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]),
        "max_new_tokens": [9, 6],
        "block_length": 4,
        "steps": 9,
        "seed": 0,
    }
    fast = model.generate(text, **options)
    monkeypatch.setattr(decoding_cache, "CachedDenoiser", SlowCachedDenoiser)
    assert torch.equal(fast, model.generate(text, **options))


@pytest.mark.wide
def test_adapters_go_with_the_twin():
    """LoRA beside the weights writes what LoRA merged into them writes."""
    torch.manual_seed(0)
    lora = LoraConfig(target_modules=["query", "value"], init_lora_weights=False)
    adapted = get_peft_model(tiny_model().double(), lora).double().eval()
    options = {"input_ids": row_text(), "block_length": 6, "steps": 12, "seed": 0}
    beside = adapted.generate(**options)
    assert not torch.equal(beside, tiny_model().double().generate(**options))
    assert torch.equal(beside, adapted.merge_and_unload().generate(**options))


@pytest.mark.wide
@pytest.mark.parametrize(
    "options",
    [
        {"block_length": 6, "steps": 12, "cache_refresh_interval": 3},
        {"steps": 6, "use_cache": True, "order": "random"},
        {"steps": 6, "use_cache": True, "remask": "confidence"},
    ],
    ids=str,
)
def test_with_a_pattern_texts_match_and_are_those_of_a_slow_cache(options, passes, monkeypatch):
    """Where every pass is full, they are the uncached ones to the bit, in float64."""
    model = tiny_model().double()
    text = row_text().repeat(3, 1)
    text[1, 8] = 9
    low, high = list(range(6, 18)), list(range(18, 30))
    size = model.config.get_text_config().vocab_size
    pattern = TokenPattern.from_token_classes([(low, 1, None), (high, 1, None)], size)

    def written(**changed):
        return model.generate(text, pattern=pattern, seed=1, **{**options, **changed})

    cached = written()
    assert any(active is not None for _, active in passes)
    assert all(pattern.matches(row[4:16]) for row in cached)
    uncached = written(use_cache=False)
    assert written(use_cache=True, cache_refresh_interval=1).equal(uncached)
    monkeypatch.setattr(decoding_cache, "CachedDenoiser", SlowCachedDenoiser)
    assert written().equal(cached)
