"""The head in chunks: losses, gradients and texts of the whole pass, and never whole logits."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_maskgit.core import chunked_head
from hf_maskgit.core.chunked_head import (
    _add,
    _ChunkedLoss,
    _chunks,
    can_chunk,
    can_hold_back,
    head_parameters,
    run_head,
)
from hf_maskgit.core.encoder_kinds import PADDING_LEAKS
from hf_maskgit.core.sampler_orders import ORDERS
from tests.support import support_matrix
from tests.support.tiny import ENCODERS, tiny_model

VOCABULARY = 40


@pytest.fixture(autouse=True)
def chunks_of_three_rows(monkeypatch):
    monkeypatch.setattr(chunked_head, "_LEAST_ROWS", 3)
    monkeypatch.setattr(chunked_head, "_CHUNK_ELEMENTS", {True: 1, False: 1})
    monkeypatch.setattr(chunked_head, "_LEAST_READ", 3)
    monkeypatch.setattr(chunked_head, "_READ_ELEMENTS", {True: 1, False: 1})


def batch_of(model, rows=4, length=9):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 30, (rows, length), generator=generator)
    chosen = torch.rand(rows, length, generator=generator) < 0.6
    return {
        "input_ids": ids.masked_fill(chosen, model.config.mask_token_id),
        "labels": ids,
        "masked_positions": chosen,
        "loss_weights": torch.rand(rows, length, generator=generator) * 3,
    }


def learned(model, batch, **how):
    """Loss and gradients of a pass."""
    model.zero_grad()
    output = model(**batch, **how)
    output.loss.backward()
    return output, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check_equal(model, batch):
    whole, gradients = learned(model, batch)
    in_chunks, found = learned(model, batch, output_logits=False, output_nll=True)
    assert whole.loss.item() == pytest.approx(in_chunks.loss.item(), rel=1e-12)
    assert in_chunks.logits is None
    assert set(found) == set(gradients)
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12 * (1 + scale))
    return in_chunks


@pytest.mark.grid(3)
@pytest.mark.parametrize("kind", ENCODERS)
def test_loss_and_gradients_are_those_of_the_whole_pass(kind):
    model = tiny_model(kind).double().eval()
    output = check_equal(model, batch_of(model))
    assert type(output.loss.grad_fn).__name__ == "_ChunkedLossBackward"


# Whose own gradients are not numbers in float64, or end in rounding that their layers blow up.
NOT_EXACT = {"longformer", "mobilebert"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", support_matrix.TYPES)
def test_every_type_of_transformers_learns_the_same(kind):
    refused = support_matrix.refusal(support_matrix.tiny_encoder_config(kind))
    if kind in NOT_EXACT or refused:
        pytest.skip(refused or "no gradient to compare with")
    model = support_matrix.tiny_generator(kind).double().eval()
    check_equal(model, support_matrix._batch(kind))


def test_the_gradient_is_that_of_finite_differences():
    model = tiny_model().double().eval()
    denoiser, n = model.denoiser, 4
    torch.manual_seed(0)
    states = torch.randn(n, 32, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(5, 30, (n,))
    weights = torch.rand(n, dtype=torch.float64)
    forbidden = torch.tensor([0, 4])
    parameters = head_parameters(denoiser)
    assert len(parameters) >= 5
    few = [p for p in parameters if p.ndim == 1][:1]

    def total(states, *_):
        return _ChunkedLoss.apply(denoiser, states, labels, weights, forbidden, *few)[0]

    assert torch.autograd.gradcheck(total, (states, *few), fast_mode=True)


class Largest(TorchDispatchMode):
    """The most rows of any float tensor as wide as the vocabulary that an operation returns."""

    def __init__(self):
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        is_wide = isinstance(out, torch.Tensor) and out.shape[-1:] == (VOCABULARY,)
        if is_wide and out.is_floating_point():
            self.rows = max(self.rows, out.numel() // VOCABULARY)
        return out


@pytest.mark.wide
def test_no_logits_of_more_than_a_chunk_are_made():
    model = tiny_model().eval()
    assert model.config.get_text_config().vocab_size == VOCABULARY
    batch = batch_of(model, rows=40)
    with Largest() as whole:
        learned(model, batch)
    with Largest() as in_chunks:
        learned(model, batch, output_logits=False)
    assert whole.rows == batch["masked_positions"].sum()
    # weights (32, V) are read by the head, transposed
    assert in_chunks.rows <= 32


@pytest.mark.parametrize("rows", [1, 3, 274])
def test_chunks_are_few_and_of_one_size(rows):
    """None is a small rest, which would read all of the head's weights for a few positions."""
    for count in range(60):
        sizes = [len(range(count)[chunk]) for chunk in _chunks(count, rows)]
        assert sum(sizes) == count
        assert len(sizes) == -(-count // rows)
        assert max(sizes, default=0) <= rows
        assert max(sizes, default=0) - min(sizes, default=0) < max(len(sizes), 2)


def test_gradients_that_share_memory_are_added_apart():
    one = torch.ones(3)
    sums = [None, None, None, None]
    for _ in range(3):
        found = [one.clone(), None, torch.ones(1).expand(3), None]
        found[1] = found[0]  # as autograd returns them for both terms of a sum
        _add(sums, found)
    assert [None if found is None else found.tolist() for found in sums] == [
        [3, 3, 3],
        [3, 3, 3],
        [3, 3, 3],
        None,
    ]


def test_cross_entropies_are_those_of_the_whole_pass():
    model = tiny_model().double().eval()
    batch = batch_of(model)
    whole = model(**batch, output_nll=True)
    in_chunks = model(**batch, output_nll=True, output_logits=False)
    torch.testing.assert_close(in_chunks.nll, whole.nll)
    assert not in_chunks.nll.requires_grad


def test_without_a_gradient_the_loss_is_the_same():
    model = tiny_model().double().eval()
    batch = batch_of(model)
    with torch.no_grad():
        found = model(**batch, output_logits=False).loss
        torch.testing.assert_close(found, model(**batch).loss)
    assert not found.requires_grad


def test_a_batch_with_nothing_chosen_has_a_gradient_of_zeros():
    model = tiny_model()
    batch = batch_of(model)
    batch["masked_positions"][:] = False
    output, gradients = learned(model, batch, output_logits=False)
    assert output.loss.item() == 0
    head = {id(parameter) for parameter in head_parameters(model.denoiser)}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in head}
    assert names <= set(gradients)
    assert all(not gradient.any() for gradient in gradients.values())


def test_the_gradient_is_scaled_by_what_follows():
    model = tiny_model().double().eval()
    batch = batch_of(model)
    _, once = learned(model, batch, output_logits=False)
    once = {name: gradient.clone() for name, gradient in once.items()}
    model.zero_grad()
    (model(**batch, output_logits=False).loss * 3).backward()
    for name, gradient in once.items():
        torch.testing.assert_close(model.get_parameter(name).grad, 3 * gradient)


def test_what_is_frozen_gets_no_gradient():
    model = tiny_model().double().eval()
    for parameter in head_parameters(model.denoiser)[1:]:
        parameter.requires_grad_(False)
    check_equal(model, batch_of(model))


def test_a_critic_that_learns_is_shown_the_same_draws():
    """It needs whole logits; they are made, and left out of what is returned."""
    model = tiny_model(token_critic="self").double().eval()
    batch = batch_of(model)
    losses = []
    for how in ({}, {"output_logits": False}):
        torch.manual_seed(0)
        output = model(**batch, **how)
        losses.append((output.loss.item(), output.critic_loss.item()))
    assert losses[0] == losses[1]
    assert output.logits is None
    check_equal(model, {**batch, "train": "denoiser"})


def test_half_precision_sums_in_float32():
    """bfloat16 weights: the gradient of many chunks is as exact as that of one."""
    model = tiny_model().bfloat16().eval()
    exact = copy.deepcopy(model).double()
    batch = batch_of(model, 40)
    _, gradients = learned(model, batch, output_logits=False)
    _, wanted = learned(exact, batch)
    name = "denoiser.cls.predictions.bias"
    assert gradients[name].dtype == torch.bfloat16
    error = (gradients[name].double() - wanted[name]).norm() / wanted[name].norm()
    assert error < 0.02


def test_where_it_cannot_be_done_the_pass_is_whole():
    model = tiny_model().eval()
    assert can_chunk(model.denoiser)
    with torch.autocast("cpu", torch.float16):
        assert not can_chunk(model.denoiser)
        assert model(**batch_of(model), output_logits=False).logits is None
    with torch.autocast("cpu", torch.bfloat16):
        assert can_chunk(model.denoiser)
    assert not can_chunk(copy.deepcopy(model.denoiser).half())
    next(model.denoiser.parameters()).ds_id = 0  # as DeepSpeed marks them
    assert not can_chunk(model.denoiser)


def test_the_head_is_the_denoiser_s_own():
    model = tiny_model().double().eval()
    ids = torch.randint(5, 30, (1, 6))
    states = model.denoiser.base_model(input_ids=ids)[0]
    torch.testing.assert_close(
        run_head(model.denoiser, states[0]), model.denoiser(input_ids=ids).logits[0]
    )


# Decoding


def texts_of(model, text, **options):
    """What `generate` makes, and in how many runs of the head."""
    runs = []

    def counted(denoiser, states, **how):
        runs.append(len(states))
        return run_head(denoiser, states, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_head, "run_head", counted)
        found = model.generate(text, seed=3, return_dict_in_generate=True, **options)
    return found, runs


def check_same_texts(model, text, monkeypatch, rows=3, **options):
    monkeypatch.setattr(chunked_head, "_LEAST_READ", rows)
    in_chunks, runs = texts_of(model, text, **options)
    monkeypatch.setattr(chunked_head, "_LEAST_READ", 10**6)
    whole, no_runs = texts_of(model, text, **options)
    assert not no_runs
    assert torch.equal(in_chunks.sequences, whole.sequences)
    assert torch.equal(in_chunks.reveal_steps, whole.reveal_steps)
    torch.testing.assert_close(
        in_chunks.reveal_log_probabilities, whole.reveal_log_probabilities, rtol=1e-5, atol=1e-6
    )
    return runs


def blanks(model, rows=3, length=9):
    text = batch_of(model, rows, length)["labels"]
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(rows, length, generator=generator) < 0.7
    return text.masked_fill(chosen, model.config.mask_token_id)


SAMPLERS = [
    *({"order": order} for order, row in ORDERS.items() if not row.asks_critic),
    {"anneal_temperature": False},
    {"do_sample": False},
    {"remask": "confidence"},
    {"pace": "entropy_bound"},
    {"pace": "threshold", "confidence_threshold": 0.3},
    {"pace": "ancestral", "order": "random", "remask": "remdm_conf"},
    {"block_length": 3, "cache_refresh_interval": 2},
    {"guidance_scale": 1.5},
    {"suppress_tokens": [11, 12], "allowed_token_ids": [[10, 11, 12, 13, 14, 20]]},
]


@pytest.mark.grid(3)
@pytest.mark.parametrize("rows", [1, 3, 12])
@pytest.mark.parametrize("options", SAMPLERS, ids=str)
def test_texts_are_those_of_whole_passes(options, rows, monkeypatch):
    """Also where one row's positions alone are more than a chunk."""
    model = tiny_model().double().eval()
    if "allowed_token_ids" in options:
        options = {**options, "allowed_token_ids": options["allowed_token_ids"][0]}
    runs = check_same_texts(model, blanks(model), monkeypatch, rows, steps=4, **options)
    assert max(runs) <= rows
    assert len(runs) >= 2


@pytest.mark.parametrize("parts", [{"self_cond": True}, {"token_critic": "self"}], ids=str)
def test_texts_of_models_with_more_parts_too(parts, monkeypatch):
    model = tiny_model(**parts).double().eval()
    order = "critic" if "token_critic" in parts else "confidence"
    assert check_same_texts(model, blanks(model), monkeypatch, steps=4, order=order)


@pytest.mark.slow
@pytest.mark.parametrize("kind", support_matrix.TYPES)
def test_every_type_of_transformers_writes_the_same(kind, monkeypatch):
    refused = support_matrix.refusal(support_matrix.tiny_encoder_config(kind))
    if refused:
        pytest.skip(refused)
    model = support_matrix.tiny_generator(kind).double().eval()
    batch = support_matrix._batch(kind)
    text = batch["input_ids"].masked_fill(batch["masked_positions"], model.config.mask_token_id)
    real = batch["attention_mask"]
    runs = check_same_texts(model, text, monkeypatch, steps=3, attention_mask=real)
    assert bool(runs) != (kind in PADDING_LEAKS), "these run by length, with their head"


def test_a_processor_is_shown_what_it_was_shown(monkeypatch):
    model, seen = tiny_model().double().eval(), []

    def shown(text, scores):
        seen.append((text.clone(), scores.clone()))
        return scores

    for rows in (3, 10**6):
        monkeypatch.setattr(chunked_head, "_LEAST_READ", rows)
        for order in ("top_probability", "confidence"):
            model.generate(blanks(model), seed=3, steps=3, logits_processor=[shown], order=order)
    half = len(seen) // 2
    assert half >= 6
    for (text, scores), (expected_text, expected) in zip(seen[:half], seen[half:], strict=True):
        assert torch.equal(text, expected_text)
        torch.testing.assert_close(scores, expected)


@pytest.mark.wide
def test_no_logits_of_more_than_a_chunk_are_made_in_decoding():
    model = tiny_model().eval()
    text = torch.full((8, 9), model.config.mask_token_id)
    for order in ("top_probability", "confidence", "random"):
        with Largest() as in_chunks:
            model.generate(text, steps=3, seed=0, order=order)
        assert in_chunks.rows <= 32


def test_where_the_head_cannot_be_held_back_logits_are_whole():
    model = tiny_model().eval()
    batch = batch_of(model)
    asked = {"input_ids": batch["input_ids"], "output_head_states": True}
    asked["masked_positions"] = batch["masked_positions"]

    def is_whole(model):
        output = model(**asked)
        assert (output.logits is None) != (output.head_states is None)
        assert can_hold_back(model, model.denoiser) == (output.logits is None)
        return output.logits is not None

    assert not is_whole(model)
    assert model(**{**asked, "masked_positions": None}).logits.shape[:2] == (4, 9)
    for hooked in (model, model.denoiser):
        for register in (hooked.register_forward_hook, hooked.register_forward_pre_hook):
            handle = register(lambda *_: None)
            assert is_whole(model)
            handle.remove()
        hooked.forward = hooked.forward  # as who wraps it does
        assert is_whole(model)
        del hooked.forward
        hooked._compiled_call_impl = hooked._call_impl  # as `compile` does
        assert is_whole(model)
        hooked._compiled_call_impl = None
    assert not is_whole(model)
    next(model.denoiser.parameters()).ds_id = 0  # as DeepSpeed marks them
    assert is_whole(model)
