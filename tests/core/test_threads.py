"""One model, several threads: every call gives what it gives alone, to the last bit."""

import copy
import functools
import random
import sys
import threading

import pytest
import torch
from transformers import pipeline

from hf_maskgit import nelbo
from hf_maskgit.core.encoder_pass import EncoderPass, running
from tests.core.test_modeling_in_torch import replicate
from tests.core.test_support_matrix import REFUSED, TYPES
from tests.support.support_matrix import tiny_generator, tokenizer_of
from tests.support.tiny import tiny_model, word_tokenizer

PAD, UNK, CLS, SEP, MASK = range(5)
TEXT = torch.tensor([[CLS, MASK, 7, MASK, MASK, SEP], [CLS, 8, MASK, SEP, PAD, PAD]])
CLEAN = torch.where(TEXT == MASK, 9, TEXT)
REAL = (TEXT != PAD).long()
THREADS = 8


@pytest.fixture(autouse=True)
def _eager_switches():
    """Threads change places every few operations, so that what they share is met in disorder."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(calls):
    """Start one thread per call at the same moment; return their results, or raise their errors."""
    start, results = threading.Barrier(len(calls)), [None] * len(calls)

    def run(i):
        start.wait()
        try:
            results[i] = calls[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def equal(found, expected):
    """Compare tensors, and whatever holds some, to the last bit."""
    if isinstance(expected, torch.Tensor):
        return torch.equal(found, expected)
    if isinstance(expected, tuple):
        return all(map(equal, found, expected))
    return found == expected


@functools.cache
def model_of(critic=None, self_cond=True):
    """A generator with all that a pass can carry; its projection is not zero."""
    model = tiny_model(self_cond=self_cond, token_critic=critic, **critic_of(critic))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in (model.self_conditioning or torch.nn.Module()).parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def critic_of(critic):
    return {"critic_config": tiny_model().config.text_config} if critic == "separate" else {}


def calls_of(model):
    """Calls of every kind on one model, by name; none draws from torch's global generator."""
    inputs = {"input_ids": TEXT, "attention_mask": REAL}
    tokenizer = word_tokenizer()
    pipes = {task: pipeline(task, model=model, tokenizer=tokenizer, device="cpu") for task in TASKS}
    critic = {"order": "critic"} if model.has_token_critic else {"order": "confidence"}

    def bound(seed):
        found = nelbo(
            model, CLEAN, REAL, num_samples=4, generator=torch.Generator().manual_seed(seed)
        )
        return found.nats, found.std_error

    def states():
        before = model(**inputs, output_last_hidden_state=True).last_hidden_state
        return model(**inputs, previous_hidden_states=before).logits

    calls = {
        "everywhere": lambda: model(**inputs).logits,
        "at the masks": lambda: model(**inputs, masked_positions=TEXT == MASK).logits,
        "at one place": lambda: model(**inputs, masked_positions=TEXT == 8).logits,
        "loss": lambda: (
            model(**inputs, labels=CLEAN.masked_fill(TEXT != MASK, -100), train="denoiser").loss
        ),
        "filled": lambda: model.generate(**inputs, seed=1, steps=3),
        "continued": lambda: model.generate(**inputs, seed=2, steps=4, max_new_tokens=5),
        "guided": lambda: model.generate(**inputs, seed=3, steps=3, guidance_scale=2.0),
        "judged": lambda: model.generate(**inputs, seed=4, steps=3, **critic),
        "bound": lambda: bound(5),
        "another bound": lambda: bound(6),
        "infilling": lambda: pipes["infilling"]("w1 {blank:2} w5 [MASK] w7", seed=0),
        "batch": lambda: pipes["infilling"](
            ["w1 {blank:2} w5", "[MASK] w3 w4 w5 w6"], seed=0, batch_size=2
        ),
        "text": lambda: pipes["text-generation"]("w1 w2", max_new_tokens=3, seed=0),
        "fill-mask": lambda: pipes["fill-mask"]("w1 [MASK] w3 w4"),
    }
    if model.self_conditioning is not None:
        calls["conditioned"] = states
    if model.has_token_critic:
        calls["scores"] = lambda: model.score_tokens(CLEAN, REAL, TEXT == MASK)
    return {name: torch.no_grad()(call) for name, call in calls.items()}


TASKS = ("infilling", "text-generation", "fill-mask")
KINDS_OF_ENCODERS = [kind for kind in TYPES if kind not in REFUSED]
KINDS = [(None, False), ("self", True), ("separate", True)]


def assert_all_at_once(model, rounds, threads=THREADS):
    """Several threads make every call in orders of their own, and get what one thread gets."""
    calls = calls_of(model)
    expected = {name: call() for name, call in calls.items()}

    def make(thread):
        order = list(calls) * rounds
        random.Random(thread).shuffle(order)
        return [name for name in order if not equal(calls[name](), expected[name])]

    found = in_threads([functools.partial(make, thread) for thread in range(threads)])
    assert found == [[]] * threads


@pytest.mark.wide
@pytest.mark.parametrize(("critic", "self_cond"), KINDS)
def test_calls_of_every_kind_at_once(critic, self_cond):
    assert_all_at_once(model_of(critic, self_cond), rounds=1, threads=4)


@pytest.mark.slow
@pytest.mark.parametrize(("critic", "self_cond"), KINDS)
def test_many_calls_of_every_kind_at_once(critic, self_cond):
    """1,000 calls and more of each model."""
    assert_all_at_once(model_of(critic, self_cond), rounds=10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS_OF_ENCODERS)
def test_texts_of_different_lengths_through_every_type_of_encoder(kind):
    """Nothing of a call lies on the modules of transformers either."""
    model, mask = tiny_generator(kind), tokenizer_of(kind).mask_token_id
    texts = [torch.arange(6, 6 + n)[None].repeat(1 + n % 3, 1) for n in range(6, 6 + THREADS)]
    for text in texts:
        text[:, 1:3] = mask
    calls = [
        functools.partial(torch.no_grad()(model), text, masked_positions=text == mask)
        for text in texts
    ]
    expected = [call().logits for call in calls]
    for _ in range(10):
        found = [out.logits for out in in_threads(calls)]
        assert all(map(torch.equal, found, expected))


def meeting(module, parties):
    """Let that many threads meet in the middle of a pass: when all have begun, they go on."""
    barrier = threading.Barrier(parties)

    def wait(*_):
        barrier.wait(30)

    return module.register_forward_pre_hook(wait)


def test_passes_that_overlap_keep_their_places_and_their_past():
    """No luck is needed: each pass has begun before one of them comes to an end."""
    model = model_of("self")
    inputs = {"input_ids": TEXT, "attention_mask": REAL}
    with torch.no_grad():
        states = model(**inputs, output_last_hidden_state=True).last_hidden_state
    calls = [
        functools.partial(
            torch.no_grad()(model),
            **inputs,
            masked_positions=torch.arange(TEXT.shape[1])[None] == torch.tensor([[i % 4], [i % 3]]),
            previous_hidden_states=states * i if i % 2 else None,
            output_last_hidden_state=i % 3 == 0,
        )
        for i in range(THREADS)
    ]
    expected = [call() for call in calls]
    hook = meeting(model.denoiser.base_model, THREADS)
    found = in_threads(calls)
    hook.remove()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.logits, other.logits)
        assert (one.last_hidden_state is None) == (other.last_hidden_state is None)


def test_an_error_in_one_thread_leaves_the_others_as_they_are():
    model = model_of("self")
    call = torch.no_grad()(lambda: model(TEXT, REAL, masked_positions=TEXT == MASK).logits)
    expected, barrier = call(), threading.Barrier(2)

    def stop(*_):
        if threading.current_thread().name == "bad":
            threading.current_thread().name = "good again"
            barrier.wait(30)
            raise RuntimeError("stopped in the middle of a pass")

    def bad():
        threading.current_thread().name = "bad"
        with pytest.raises(RuntimeError, match="in the middle"):
            call()
        return model.denoiser(TEXT, REAL).logits.shape  # and nothing of it is left

    def good():
        barrier.wait(30)  # the other one is in the middle of its pass
        return call()

    hook = model.denoiser.base_model.register_forward_pre_hook(stop)
    shape, found = in_threads([bad, good])
    hook.remove()
    assert torch.equal(found, expected)
    assert shape == (*TEXT.shape, model.config.text_config.vocab_size)


def gradients_of(model, i, backward_elsewhere=False):
    """The gradient of a loss that differs from thread to thread, for this thread alone."""
    words = (TEXT == MASK) | (TEXT > MASK)
    labels = torch.where(words, 5 + (CLEAN + i) % 35, -100)
    chosen = words & (torch.arange(TEXT.shape[1]) % 3 != i % 3)
    loss = model(TEXT, REAL, labels=labels, masked_positions=chosen, train="denoiser").loss
    parameters = [p for p in model.parameters() if p.requires_grad]

    def backward():
        return tuple(torch.autograd.grad(loss, parameters, allow_unused=True))

    found = in_threads([backward])[0] if backward_elsewhere else backward()
    return loss.detach(), tuple(g for g in found if g is not None)


def trained(**options):
    """A model in training, every text of which looks back on a pass before."""
    model = tiny_model(self_cond=True, self_cond_train_prob=1.0, **options).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in model.self_conditioning.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.grid(2)
@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_gradients_of_several_threads(recomputes, elsewhere):
    """Also recomputed ones, and those that another thread takes, as torch's own do on a GPU."""
    model = trained()
    expected = [gradients_of(model, i, elsewhere) for i in range(THREADS)]
    if recomputes:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    calls = [functools.partial(gradients_of, model, i, elsewhere) for i in range(THREADS)]
    assert all(map(equal, in_threads(calls), expected))


@torch.no_grad()
def loss_at(model, labels, chosen):
    return float(model(TEXT, REAL, labels=labels, masked_positions=chosen, train="denoiser").loss)


def test_replicas_run_side_by_side():
    """What DataParallel does: a thread per device, each with a replica of the same modules."""
    model = model_of("self")
    labels = [torch.where(TEXT == MASK, 5 + i, -100).roll(i, 0) for i in range(4)]
    labels = [one.masked_fill(REAL == 0, -100) for one in labels]  # of no padding
    chosen = [one >= 0 for one in labels]
    chosen[1][0] = False  # another number of places
    expected = [loss_at(model, *one) for one in zip(labels, chosen, strict=True)]
    hook = meeting(model.denoiser.base_model, len(labels))  # replicas take it along
    calls = [
        functools.partial(loss_at, replicate(model), *one)
        for one in zip(labels, chosen, strict=True)
    ]
    hook.remove()
    assert in_threads(calls) == expected


def test_two_copies_of_one_encoder_in_the_middle_of_each_others_passes():
    """A hook of one model may ask the other: each finds its own pass again."""
    model, twin = model_of("self"), copy.deepcopy(model_of("self"))
    inputs = {"input_ids": TEXT, "attention_mask": REAL, "masked_positions": TEXT == MASK}
    with torch.no_grad():
        expected, plain = model(**inputs).logits, model.denoiser(TEXT, REAL).logits
        found = []

        def ask(*_):
            found.append(twin(**inputs).logits)
            found.append(twin.denoiser(TEXT, REAL).logits)  # the bare encoder, in no pass of ours

        hook = model.denoiser.base_model.register_forward_pre_hook(ask)
        assert torch.equal(model(**inputs).logits, expected)
        hook.remove()
        with running(EncoderPass(TEXT == 7), twin.denoiser, None, {}):
            assert torch.equal(model(**inputs).logits, expected)
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], plain)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["model", "denoiser", "body"])
def test_compiled_models_and_parts_in_several_threads(part):
    """A compiled part finds the pass of the thread that runs it."""
    model = tiny_model()
    calls = [
        functools.partial(torch.no_grad()(model), TEXT, REAL, masked_positions=places)
        for places in (TEXT == MASK, TEXT == 7, TEXT >= 5, TEXT == SEP)
    ]
    expected = [call().logits for call in calls]
    torch._dynamo.reset()
    compiled = {"model": model, "denoiser": model.denoiser, "body": model.denoiser.base_model}
    compiled[part].compile(backend="eager")
    for call, logits in zip(calls, expected, strict=True):
        assert torch.equal(call().logits, logits)
    for _ in range(20):
        found = [out.logits for out in in_threads(calls)]
        assert all(map(torch.equal, found, expected))
    torch._dynamo.reset()
