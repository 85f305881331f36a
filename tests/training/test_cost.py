"""Costs: formulas against what torch counts on real models."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_maskgit.training.cost import (
    MASKED_SHARE,
    SHARDED,
    ModelSize,
    activation_bytes,
    memory_of,
    operations_per_token,
    seconds_for,
    size_of,
    tokens_per_second,
)
from hf_maskgit.training.dry_run import KeptBytes
from tests.support import cost_table
from tests.support.pages import between
from tests.support.tiny import ENCODERS, tiny_model

LENGTH, BATCH = 32, 4


def update_of(model, checkpointing=False):
    """Forward and backward over texts of one length of which half of the tokens are hidden."""
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable()
    ids = torch.randint(10, 30, (BATCH, LENGTH))
    hidden = torch.arange(LENGTH).expand(BATCH, LENGTH) % 2 == 0
    masked = ids.masked_fill(hidden, model.config.mask_token_id)
    model(input_ids=masked, labels=ids, masked_positions=hidden).loss.backward()


@pytest.mark.parametrize("kind", ENCODERS)
def test_operations_are_those_that_torch_counts(kind):
    """Within 2 %, of encoders whose attention is made of plain products."""
    model = tiny_model(kind)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counted:
        update_of(model)
    ours = operations_per_token(size_of(model), LENGTH) * BATCH * LENGTH
    if kind == "albert":  # two layers of the same weights
        assert 0.5 < ours / counted.get_total_flops() < 0.7
    else:
        assert ours == pytest.approx(counted.get_total_flops(), rel=0.02)


def test_with_checkpointing_the_forward_pass_is_taken_twice():
    plain, twice = tiny_model(), tiny_model()
    found = []
    for model, checkpointing in ((plain, False), (twice, True)):
        model.set_attn_implementation("eager")
        with FlopCounterMode(display=False) as counted:
            update_of(model, checkpointing)
        found.append(counted.get_total_flops())
    size = size_of(plain)
    ours = [operations_per_token(size, LENGTH, checkpointing=on) for on in (False, True)]
    assert found[1] > found[0]
    # The head, which is most of a tiny model, is not taken again.
    assert found[1] / found[0] <= ours[1] / ours[0] == pytest.approx(4 / 3)


def test_memory_of_weights_gradients_and_optimizer_is_exact():
    model = tiny_model(token_critic="self")
    model.critic_head.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters())
    update_of(model)
    optimizer.step()
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    memory = memory_of(parameters, trained, remembered=2 * trained, activations=7)
    assert memory.weights == sum(p.nbytes for p in model.parameters())
    states = [t for state in optimizer.state.values() for t in state.values() if t.ndim]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert memory.gradients == sum(gradient.nbytes for gradient in gradients)
    assert memory.optimizer == sum(state.nbytes for state in states)
    assert memory.averages == 0
    assert memory.total == memory.weights + 3 * memory.gradients + 7
    averaged = memory_of(parameters, trained, remembered=0, averages=True)
    assert (averaged.averages, averaged.optimizer) == (memory.gradients, 0)


@pytest.mark.parametrize("how", SHARDED)
def test_what_is_sharded_is_divided_among_devices(how):
    adam = {"remembered": 800, "averages": True}
    one, eight = (memory_of(800, 400, devices=d, how=how, **adam) for d in (1, 8))
    copy = 4 * 400 if how == "ZeRO-2" else 0  # of the weights, to learn on
    plain = memory_of(800, 400, **adam)
    assert one == replace(plain, optimizer=plain.optimizer + copy)
    for part in ("weights", "gradients", "optimizer", "averages"):
        share = 8 if part in SHARDED[how] else 1
        assert getattr(eight, part) * share == getattr(one, part)


def test_what_a_forward_pass_keeps_is_of_the_order_of_the_formula():
    """Ours is in float32: twice the bytes; with dropout's masks. Within a factor of two."""
    model = tiny_model()
    model.config.get_text_config()._attn_implementation = "sdpa"
    kept = KeptBytes(model)
    with kept.counted():
        update_of(model)
    estimate = 2 * activation_bytes(size_of(model), BATCH * LENGTH)
    assert 0.5 < kept.most / estimate < 2


def test_a_plain_encoder_is_counted_by_its_shape():
    base = ModelSize.of_encoder(layers=12, hidden=768, vocabulary=30_522)  # BERT-base
    assert base.parameters == pytest.approx(110e6, rel=0.02)
    large = ModelSize.of_encoder(layers=24, hidden=1024, vocabulary=30_522)
    assert large.parameters == pytest.approx(335e6, rel=0.02)


def test_time_is_operations_over_their_rate():
    size = ModelSize(1_000, body=700, head=300, layers=2, hidden=10, vocabulary=30)
    operations = 6 * (700 + MASKED_SHARE * 300) + 12 * 2 * 10 * 64
    assert operations_per_token(size, 64) == operations
    rate = tokens_per_second(size, 64, peak=1e9, utilisation=0.4)
    assert rate == pytest.approx(0.4e9 / operations)
    assert seconds_for(1e6, rate, devices=4) == pytest.approx(1e6 * operations / 0.4e9 / 4)
    kept = activation_bytes(size, 10), activation_bytes(size, 10, checkpointing=True)
    logits = 10 * 30 * 10 // 2
    assert kept == (34 * 10 * 10 * 2 + logits, 34 * 10 * 10 + 2 * 10 * 10 * 2 + logits)


def test_the_page_holds_what_the_formulas_say():
    """Where this fails, `python -m tests.support.cost_table` writes the page anew."""
    page = cost_table.PAGE.read_text(encoding="utf-8")
    for name, content in cost_table.tables().items():
        assert between(page, name) == content, name
    # And what its sentences repeat of them.
    sizes = cost_table.MODELS.values()
    totals = [cost_table.state(size, "DDP", 1).total / 1e9 for size in sizes]
    assert [f"| {size} GB |" in page for size in ("2.5", "20", "133")] == [True] * 3
    assert totals == pytest.approx([2.5, 20, 133], rel=0.03)
    sharded = cost_table.state(cost_table.MODELS["7 B"], "FSDP2", 8)
    kept = activation_bytes(cost_table.MODELS["7 B"], cost_table.TOKENS, checkpointing=True)
    assert (sharded.total / 1e9, kept / 1e9) == pytest.approx((17, 11), rel=0.03)
    shares = [
        round(100 * 12 * size.layers * size.hidden * length / operations_per_token(size, length))
        for length in (512, 8192)
        for size in sizes
    ]
    assert shares == [8, 4, 2, 59, 42, 25]
    assert "are 8, 4 and 2 % of" in page
    assert "59, 42 and 25 % at 8,192" in page
    assert memory_of(1, 1, remembered=2).total == 16
    assert memory_of(1, 1, remembered=2, averages=True).total == 20
