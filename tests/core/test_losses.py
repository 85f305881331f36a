"""Losses: the cross-entropy itself, and that its expectation is the bound, by writing it out."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from transformers import BertConfig

from hf_maskgit import (
    DataCollatorForMaskGit,
    MaskGitConfig,
    MaskGitForMaskedLM,
    get_schedule,
)
from hf_maskgit.core import losses
from hf_maskgit.core.losses import (
    IGNORED_LABEL,
    cross_entropy,
    cross_entropy_and_slopes,
    forbid,
    weighted_sum,
)
from hf_maskgit.core.masking import exact_count_weights, exact_counts, stratified_times
from hf_maskgit.core.sampler_scores import highest
from tests.support.oracles import (
    CLS,
    FIRST_WORD,
    MASK,
    PAD,
    SEP,
    UNK,
    TableDenoiser,
    all_texts,
    bound,
    chain_rules,
    masked_loss,
    negative_log_likelihood,
    word_piece_tokenizer,
)

FORBIDDEN = torch.tensor([PAD, CLS, MASK])
SCHEDULES = {"linear": "linear", "cosine": "cosine", "bowl": lambda t: (t + t * t) / 2}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
TEXT = (0, 2, 1, 1)
N = len(TEXT)


def inputs(n=7, vocab_size=9, dtype=torch.float32):
    logits = (4 * torch.randn(n, vocab_size)).to(dtype).requires_grad_()
    labels = torch.randint(FIRST_WORD, vocab_size, (n,))
    return logits, labels, torch.rand(n) * 10


def masked_cross_entropy(logits, labels, weights, forbidden):
    return weighted_sum(cross_entropy(logits, labels, forbidden), weights)


def slow_cross_entropy(logits, labels, weights, forbidden):
    total = 0.0
    for row, label, weight in zip(logits.tolist(), labels.tolist(), weights.tolist(), strict=True):
        allowed = [x for i, x in enumerate(row) if i not in forbidden]
        top = max(allowed)
        log_total = top + math.log(sum(math.exp(x - top) for x in allowed))
        total += weight * (log_total - row[label])
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_loss_is_the_obvious_sum_in_float32(dtype, weighted):
    logits, labels, weights = inputs(dtype=dtype)
    found = masked_cross_entropy(logits, labels, weights if weighted else None, FORBIDDEN)
    used = weights if weighted else torch.ones(7)
    expected = slow_cross_entropy(logits.float(), labels, used, FORBIDDEN.tolist())
    assert found.dtype == torch.float32
    assert found.shape == ()
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_float64_loss_stays_float64():
    logits, labels, weights = inputs(dtype=torch.float64)
    found = masked_cross_entropy(logits, labels, weights, FORBIDDEN)
    expected = slow_cross_entropy(logits, labels, weights.double(), FORBIDDEN.tolist())
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forbidden_ids_have_probability_zero_and_no_gradient(dtype):
    logits, labels, weights = inputs(dtype=dtype)
    loud = logits.detach().clone()
    loud[:, FORBIDDEN] = 1e4
    loud.requires_grad_()
    for given in (logits, loud):
        masked_cross_entropy(given, labels, weights, FORBIDDEN).backward()
    assert not loud.grad[:, FORBIDDEN].any()
    assert torch.equal(loud.grad, logits.grad)
    assert bool(forbid(loud, FORBIDDEN)[:, FORBIDDEN].isneginf().all())
    probability = forbid(loud, FORBIDDEN).softmax(-1)
    assert not probability[:, FORBIDDEN].any()
    torch.testing.assert_close(probability.sum(-1), torch.ones(7))
    assert bool((loud[:, FORBIDDEN] > 9e3).all())  # what was given is left as it was


def test_the_gradient_is_weight_times_probability_minus_truth():
    logits, labels, weights = inputs(dtype=torch.float64)
    masked_cross_entropy(logits, labels, weights, FORBIDDEN).backward()
    truth = torch.eye(9, dtype=torch.float64)[labels]
    expected = weights[:, None] * (forbid(logits.detach(), FORBIDDEN).softmax(-1) - truth)
    torch.testing.assert_close(logits.grad, expected)


def test_no_chosen_position_still_gives_a_gradient():
    logits, labels, weights = inputs(n=0)
    found = masked_cross_entropy(logits, labels, weights, FORBIDDEN)
    found.backward()
    assert found.tolist() == 0
    assert logits.grad.shape == (0, 9)


@pytest.fixture(scope="module")
def model_and_batch():
    torch.manual_seed(0)
    tokenizer = word_piece_tokenizer("abcdefghijkl")
    encoder = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    config = MaskGitConfig(
        text_config=encoder,
        mask_token_id=MASK,
        pad_token_id=PAD,
        bos_token_id=CLS,
        eos_token_id=SEP,
        unk_token_id=UNK,
        special_token_ids=[PAD, UNK, CLS, SEP, MASK],
    )
    texts = ["a b c d e f", "g h", "i j k l a b c d e f g h", "b a d"]
    features = [{"input_ids": ids} for ids in tokenizer(texts)["input_ids"]]
    batch = DataCollatorForMaskGit.from_config(config, tokenizer)(features)
    return MaskGitForMaskedLM(config).eval(), batch


def test_the_denominator_is_the_maskable_tokens_and_never_the_chosen_ones(model_and_batch):
    model, batch = model_and_batch
    full = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    chosen = batch["masked_positions"]
    expected = slow_cross_entropy(
        full[chosen], batch["labels"][chosen], batch["loss_weights"][chosen], FORBIDDEN.tolist()
    )
    maskable = 6 + 2 + 12 + 3
    assert 0 < int(chosen.sum()) < maskable
    assert model(**batch).loss.tolist() == pytest.approx(expected / maskable, rel=1e-5)
    given = model(**batch, num_items_in_batch=torch.tensor(1000)).loss
    assert given.tolist() == pytest.approx(expected / 1000, rel=1e-5)


def test_the_cross_entropies_of_a_pass_are_those_its_loss_is_the_weighted_sum_of(model_and_batch):
    model, batch = model_and_batch
    output = model(**batch, output_nll=True)
    weights = batch["loss_weights"][batch["masked_positions"]]
    assert output.nll.shape == weights.shape
    assert not output.nll.requires_grad
    count = (batch["labels"] != -100).sum()
    torch.testing.assert_close((output.nll * weights).sum() / count, output.loss.detach())
    assert "nll" not in model(**batch)
    with pytest.raises(ValueError, match="without `labels`, so there is no true token"):
        model(input_ids=batch["input_ids"], output_nll=True)


def test_the_parts_of_an_update_add_up_to_its_loss_and_its_gradient(model_and_batch):
    model, batch = model_and_batch
    count = int((batch["labels"] != -100).sum())
    model.zero_grad()
    whole = model(**batch).loss
    whole.backward()
    gradient = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    parts = 0.0
    for row in range(4):
        part = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        loss = model(**part, num_items_in_batch=count).loss
        loss.backward()
        parts += loss.tolist()
    assert parts == pytest.approx(whole.tolist(), rel=1e-5)
    torch.testing.assert_close([p.grad for p in model.parameters()], gradient)


def test_a_part_without_chosen_positions_still_reaches_every_parameter(model_and_batch):
    model, batch = model_and_batch
    nothing = {**batch, "masked_positions": torch.zeros_like(batch["masked_positions"])}
    model.zero_grad()
    loss = model(**nothing).loss
    loss.backward()
    assert loss.tolist() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


# What follows is the mathematics of the objective, on V = 3 and L = 4, where the bound is a mean
# over the 24 orders. The denoiser's conditionals belong to no joint distribution, as a trained
# network's.


def losses_by_set(denoiser, text):
    """Unweighted loss of every non-empty set of hidden positions."""
    positions = range(len(text))
    return {
        hidden: masked_loss(denoiser, text, hidden)
        for k in positions
        for hidden in itertools.combinations(positions, k + 1)
    }


def expected_exact_count_loss(denoiser, text, schedule, weight=None):
    """Over counts and sets, by the measure of the times that the library turns into each count."""
    schedule, n = get_schedule(schedule), len(text)

    def count_at(time):
        return int(
            exact_counts(torch.tensor([time], dtype=torch.float64), torch.tensor([n]), schedule)
        )

    def last_time_of(k):  # bisection: counts rise with time
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if count_at(middle) <= k else (low, middle)
        return low

    ends = [0.0, *(last_time_of(k) for k in range(1, n)), 1.0]
    total = 0.0
    for k in range(1, n + 1):
        sets = [loss for hidden, loss in losses_by_set(denoiser, text).items() if len(hidden) == k]
        count, size = torch.tensor([k]), torch.tensor([n])
        used = exact_count_weights(count, size, schedule) if weight is None else weight(k)
        total += (ends[k] - ends[k - 1]) * float(used) * np.mean(sets)
    return total


def expected_bernoulli_loss(denoiser, text, schedule, weighted=True):
    """Integrated over time, since its samples have no finite variance."""
    schedule, n = get_schedule(schedule), len(text)
    sets = losses_by_set(denoiser, text)

    def at(time):
        t = torch.tensor(time, dtype=torch.float64)
        rate = float(schedule.mask_rate(t))
        weight = float(schedule.loss_weight(t)) if weighted else 1.0
        return weight * sum(
            rate ** len(hidden) * (1 - rate) ** (n - len(hidden)) * loss
            for hidden, loss in sets.items()
        )

    return quad(at, 0, 1, epsabs=1e-10)[0]


def test_there_are_24_orders_and_they_disagree():
    rules = chain_rules(TableDenoiser.inconsistent(), TEXT)
    assert len(rules) == 24
    assert np.std(rules) > 0.1


@each_schedule
def test_the_expected_loss_is_the_mean_over_the_orders_of_the_chain_rule(schedule):
    denoiser, given = TableDenoiser.inconsistent(), SCHEDULES[schedule]
    for text in [TEXT, (1, 1, 2, 0)]:
        expected = bound(denoiser, text)
        found = expected_exact_count_loss(denoiser, text, given)
        assert found == pytest.approx(expected, rel=1e-9)
        assert expected_bernoulli_loss(denoiser, text, given) == pytest.approx(expected, rel=1e-8)


@each_schedule
def test_a_wrong_weight_is_not_the_bound(schedule):
    """No weight, the weight of another schedule, and the weight of the time (at its middle)."""
    denoiser, given = TableDenoiser.inconsistent(), SCHEDULES[schedule]
    expected, own = bound(denoiser, TEXT), get_schedule(given)
    wrong = [
        expected_exact_count_loss(denoiser, TEXT, given, weight=lambda k: 1.0),
        expected_exact_count_loss(
            denoiser,
            TEXT,
            given,
            lambda k: own.loss_weight(own.inverse(torch.tensor((k - 0.5) / N))),
        ),
        expected_bernoulli_loss(denoiser, TEXT, given, weighted=False),
    ]
    if schedule != "linear":
        wrong.append(expected_exact_count_loss(denoiser, TEXT, given, weight=lambda k: N / k))
    assert all(abs(loss / expected - 1) > 0.02 for loss in wrong), (wrong, expected)


@each_schedule
def test_for_independent_uniform_tokens_the_loss_is_the_logarithm_of_their_number(schedule):
    denoiser, given = TableDenoiser.context_free([1 / 3] * 3, [N]), SCHEDULES[schedule]
    exact = expected_exact_count_loss(denoiser, TEXT, given) / N
    bernoulli = expected_bernoulli_loss(denoiser, TEXT, given) / N
    assert (exact, bernoulli) == pytest.approx((math.log(3), math.log(3)), rel=1e-8)
    assert bound(denoiser, TEXT) / N == pytest.approx(math.log(3), rel=1e-12)


@pytest.mark.wide
def test_the_expected_loss_bounds_the_negative_log_likelihood_from_above():
    """Strictly where the orders disagree, with equality for conditionals of one distribution."""
    denoiser, texts = TableDenoiser.inconsistent(), all_texts(3, N)
    true = [negative_log_likelihood(denoiser, text) for text in texts]
    assert math.fsum(math.exp(-nats) for nats in true) == pytest.approx(1, abs=1e-12)
    assert all(
        expected_exact_count_loss(denoiser, text, "linear") > nats
        for text, nats in zip(texts[::8], true[::8], strict=True)
    )
    joint = np.random.default_rng(0).dirichlet(np.ones(81)).reshape(3, 3, 3, 3)
    consistent = TableDenoiser.consistent(joint)
    for text in texts[::8]:
        found = expected_exact_count_loss(consistent, text, "cosine")
        assert found == pytest.approx(-math.log(joint[text]), rel=1e-9)


def update_losses(denoiser, chosen, weights):
    """Loss of each example of an update; chosen and weights (B, N) at the words."""
    ids = torch.tensor(TEXT) + FIRST_WORD
    logits = denoiser(torch.where(chosen, MASK, ids), masked_positions=chosen).logits
    rows, where = chosen.nonzero(as_tuple=True)
    losses = torch.zeros(len(chosen), dtype=torch.float64)
    for start in range(0, len(rows), 5000):
        part = slice(start, start + 5000)
        nll = -(forbid(logits[part], torch.arange(FIRST_WORD))).log_softmax(-1)
        nll = nll[torch.arange(len(nll)), ids[where[part]]]
        losses.index_add_(0, rows[part], nll * weights[rows[part], where[part]].double())
    return losses


def deviation(losses, expected):
    """In standard errors; stratified times make the true ones smaller: the safe side."""
    return abs(float(losses.mean()) - expected) / float(losses.std() / math.sqrt(len(losses)))


@each_schedule
def test_the_mean_over_the_draws_of_the_collator_is_the_bound(schedule):
    """False alarm: 5 standard errors, 6e-7. The same statistic rejects plain weights."""
    denoiser, count = TableDenoiser.inconsistent(), 3000
    text = [CLS, *(FIRST_WORD + token for token in TEXT), SEP]
    features = [{"input_ids": text, "example_id": row} for row in range(count)]
    collator = DataCollatorForMaskGit(
        word_piece_tokenizer("abc"), schedule=SCHEDULES[schedule], corruption_prob=0
    )
    batch = collator(features)
    chosen, weights = batch["masked_positions"][:, 1:-1], batch["loss_weights"][:, 1:-1]
    expected = bound(denoiser, TEXT)
    assert deviation(update_losses(denoiser, chosen, weights), expected) < 5
    assert deviation(update_losses(denoiser, chosen, chosen.double()), expected) > 20


def test_the_weight_of_the_time_is_rejected_with_exact_counts():
    """The same statistic that accepts the right weight within 5 standard errors."""
    denoiser, count = TableDenoiser.inconsistent(), 6000
    generator = torch.Generator().manual_seed(0)
    offsets = torch.rand(count, dtype=torch.float64, generator=generator)
    schedule, size = get_schedule("linear"), torch.full((count,), N)
    times = stratified_times(torch.arange(count), offsets, count)
    counts = exact_counts(times, size, schedule)
    scores = torch.rand(count, N, generator=generator)
    chosen = highest(scores, torch.ones(count, N, dtype=torch.bool), counts)
    expected = bound(denoiser, TEXT)
    right = exact_count_weights(counts, size, schedule)[:, None].expand(count, N)
    wrong = schedule.loss_weight(times)[:, None].expand(count, N)
    assert deviation(update_losses(denoiser, chosen, right), expected) < 5
    assert float(update_losses(denoiser, chosen, wrong).mean()) > 2 * expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_blocks_of_rows_give_the_loss_and_gradient_of_the_whole(dtype, monkeypatch):
    """Against torch's own cross-entropy in float64, in blocks of one, three and all rows."""
    true = torch.randn(7, 11, dtype=torch.float64).to(dtype)
    labels, weights = torch.randint(2, 11, (7,)), torch.rand(7)
    plain = true.double().clone().requires_grad_()
    expected = F.cross_entropy(
        plain.index_fill(1, torch.tensor([0, 1]), -torch.inf), labels, reduction="none"
    )
    (expected * weights).sum().backward()
    tolerance = {"rtol": 0, "atol": 20 * torch.finfo(dtype).eps}
    for elements in (1, 33, 2**18):
        monkeypatch.setitem(losses._BLOCK_ELEMENTS, True, elements)
        logits = true.clone().requires_grad_()
        found = cross_entropy(logits, labels, torch.tensor([0, 1]))
        (found * weights).sum().backward()
        torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(logits.grad.double(), plain.grad, **tolerance)
        assert logits.grad.dtype == dtype
        assert bool((logits.grad[:, :2] == 0).all())


def test_a_small_probability_keeps_its_gradient_when_a_float16_loss_is_scaled():
    logits = torch.tensor([[0.0, 0.0, -18.0]], dtype=torch.float16, requires_grad=True)
    (cross_entropy(logits, torch.tensor([0]), torch.tensor([1])) * 2.0**16).sum().backward()
    assert logits.grad[0, 2].item() == pytest.approx(2**16 * math.exp(-18), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_slopes_are_the_gradient_of_the_weighted_sum(dtype):
    """Many blocks of rows, a label that costs nothing, and an id that cannot be written."""
    torch.manual_seed(0)
    logits = (3 * torch.randn(9, 2**16)).to(dtype).requires_grad_()
    labels = torch.randint(5, 2**16, (9,))
    labels[4] = IGNORED_LABEL
    forbidden, weights = torch.tensor([0, 4]), torch.rand(9)
    nll, slopes = cross_entropy_and_slopes(logits, labels, forbidden, weights)
    assert not nll.requires_grad
    assert slopes.dtype == dtype
    exact = logits.detach().double().requires_grad_()
    masked = exact.index_fill(1, forbidden, -torch.inf)
    wanted = F.cross_entropy(masked, labels, reduction="none")
    (wanted * weights.double()).sum().backward()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(nll.double(), wanted.detach(), rtol=min(tolerance, 1e-5), atol=1e-12)
    torch.testing.assert_close(slopes.double(), exact.grad, rtol=tolerance, atol=1e-12)
