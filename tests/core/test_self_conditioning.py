"""Self-conditioning: nothing at first, decided per text, exact in training, sampling and bound."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from hf_maskgit import DataCollatorForMaskGit, MaskGitConfig, MaskGitForMaskedLM, nelbo
from hf_maskgit.core.self_conditioning import (
    Memory,
    SelfConditioning,
    add_to_embeddings,
    spare_padding,
)
from hf_maskgit.evaluation import ONE_PASS, TWO_PASSES, NelboOutput, evaluate_nelbo
from tests.support.grids import wide
from tests.support.oracles import TableDenoiser, all_texts, bound, negative_log_likelihood
from tests.support.support_matrix import tiny_encoder_config, tiny_generator
from tests.support.tiny import (
    ENCODERS,
    bert_config,
    tiny_config,
    tiny_model,
    tokenizer_for,
    word_tokenizer,
)
from tests.support.two_processes import train_two_processes

PAD, UNK, CLS, SEP, MASK = range(5)
TEXTS = ["w1 w2 w3 w4 w5 w6", "w7 w8", "w9 w10 w11 w12", "w13 w14 w15 w16 w17 w18 w19 w20"]


def conditioned(kind="bert", scale=0.3, **options):
    """A generator whose projection is not zero."""
    model = tiny_model(kind, self_cond=True, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in model.self_conditioning.parameters():
            torch.nn.init.normal_(parameter, std=scale)
    return model


def batch_of(kind="bert", texts=TEXTS):
    tokenizer = tokenizer_for(kind)
    texts = (
        [t.replace(" ", "") for t in ("M K L V", "A A", "G S G T", "L L V V")] * (len(texts) // 4)
        if kind == "esm"
        else texts
    )
    rows = tokenizer(list(texts))["input_ids"]
    collate = DataCollatorForMaskGit(tokenizer)
    return collate([{"input_ids": row, "example_id": i} for i, row in enumerate(rows)])


def inputs_of(batch):
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@pytest.fixture(scope="module")
def batch():
    return batch_of()


# --- without effect at first ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_a_new_one_is_the_plain_model_to_the_last_bit(kind):
    plain, model = tiny_model(kind), tiny_model(kind, self_cond=True)
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["self_conditioning.weight", "self_conditioning.null"]
    batch = batch_of(kind)
    inputs = inputs_of(batch)
    for looks_first in (None, True, False):
        logits = model(**inputs, self_condition=looks_first).logits
        assert torch.equal(logits, plain(**inputs).logits)
    assert torch.equal(model.train()(**batch).loss, plain.train()(**batch).loss)
    model.eval(), plain.eval()
    masked = batch["input_ids"].masked_fill(batch["masked_positions"], plain.config.mask_token_id)
    options = {"attention_mask": batch["attention_mask"], "seed": 1, "anneal_temperature": False}
    assert torch.equal(model.generate(masked, **options), plain.generate(masked, **options))


@pytest.mark.parametrize("rate", [0.0, 0.75, 1.0])
def test_projection_and_null_state_learn_at_any_rate(batch, rate):
    """None is left without a gradient, which would stop training on several processes."""
    fresh = tiny_model(self_cond=True, self_cond_train_prob=rate).train()
    fresh(**batch).loss.backward()
    assert float(fresh.self_conditioning.weight.grad.abs().max()) > 0
    assert fresh.self_conditioning.null.grad is not None
    model = conditioned(self_cond_train_prob=rate).train()
    model(**batch).loss.backward()
    assert bool(model.self_conditioning.null.grad.any()) == (rate < 1)


# --- decided per text ----------------------------------------------------------------------------


def decisions(model, batch):
    """Which rows of each pass of a training step look back; None where no pass came before."""
    seen = []
    hook = model.self_conditioning.register_forward_pre_hook(
        lambda _, args: seen.append(args[1] if args[0] is not None else None)
    )
    model(**batch)
    hook.remove()
    assert seen[0] is None
    return seen[-1]


@pytest.mark.wide
def test_each_text_is_decided_for_itself():
    """4,000 coins of 0.75: a false alarm (5 standard deviations) comes once in 1.7 million."""
    model, batch = conditioned().train(), batch_of(texts=TEXTS * 50)
    rows = torch.stack([decisions(model, batch) for _ in range(20)]).double()
    assert rows.shape == (20, 200)
    assert abs(rows.mean() - 0.75) < 5 * math.sqrt(0.75 * 0.25 / rows.numel())
    assert rows.std(1).min() > 0, "some batches were decided as a whole"


def test_the_rate_in_training_and_every_text_in_evaluation(batch):
    model = conditioned(self_cond_train_prob=0.0).train()
    seen = []
    model.self_conditioning.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(**batch)
    assert seen == [None], "a pass that nobody looks back on was made"
    sure = conditioned(self_cond_train_prob=1.0).train()
    looked = sure(**inputs_of(batch), self_condition=True).logits
    assert torch.equal(sure(**batch).logits, looked[batch["masked_positions"]])
    assert torch.equal(model(**batch, self_condition=True).loss, sure(**batch).loss)
    before = torch.get_rng_state()
    assert torch.equal(model.eval()(**batch).loss, sure(**batch).loss)
    assert torch.equal(torch.get_rng_state(), before), "evaluation draws nothing"


def test_rows_with_and_without_a_pass_before_stand_side_by_side(batch):
    model, inputs = conditioned().double(), inputs_of(batch)
    none = model(**inputs, output_last_hidden_state=True)
    states = none.last_hidden_state
    everywhere = model(**inputs, previous_hidden_states=states).logits
    mixed = model(
        **inputs,
        previous_hidden_states=states,
        has_previous=torch.tensor([True, False, False, True]),
    ).logits
    real = batch["attention_mask"].bool()
    for i, expected in enumerate((everywhere, none.logits, none.logits, everywhere)):
        torch.testing.assert_close(mixed[i][real[i]], expected[i][real[i]])
    assert not torch.allclose(everywhere[0], none.logits[0], atol=0.1)


def test_nothing_is_added_at_padding():
    addition, real = torch.tensor([1.0, 2.0]), torch.tensor([[1, 1, 0], [0, 1, 1]])
    expected = torch.tensor([[[1, 2], [1, 2], [0, 0]], [[0, 0], [1, 2], [1, 2]]])
    assert torch.equal(spare_padding(addition, real), expected.float())
    assert torch.equal(spare_padding(addition.expand(2, 3, 2), real), expected.float())
    assert torch.equal(spare_padding(addition, None), addition)
    assert torch.equal(spare_padding(addition, real[:, None, None]), addition)  # not one per token


@pytest.mark.grid(2)
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize("looks_back", [True, False])
def test_embeddings_of_padding_stay_as_they_are(kind, looks_back):
    """Some encoders let a token see its neighbour's embedding, padding or not."""
    batch, seen = inputs_of(batch_of(kind)), []
    model = conditioned(kind)
    model.get_input_embeddings().register_forward_hook(lambda *args: seen.append(args[-1]))
    with torch.no_grad():
        model(**batch, self_condition=looks_back)
    padding = batch["attention_mask"] == 0
    expected = torch.nn.functional.embedding(
        batch["input_ids"], model.get_input_embeddings().weight
    )
    assert len(seen) == 1 + looks_back
    for embeddings in seen:
        assert torch.equal(embeddings[padding], expected[padding])
        assert not torch.isclose(embeddings[~padding], expected[~padding]).all(-1).any()


def test_the_projection_by_hand():
    part = SelfConditioning(3, 2, std=1.0)
    assert not part.weight.any()
    assert part.null.std() > 0.1
    torch.nn.init.normal_(part.weight)
    states = torch.randn(2, 4, 3)
    out = part(states, torch.tensor([False, True]))
    torch.testing.assert_close(out[0], (part.weight @ part.null / 3).expand(4, 2))
    torch.testing.assert_close(out[1], states[1] @ part.weight.T / 3)
    assert part(None, None).shape == (2,)


@pytest.mark.parametrize("width", [4, 64, 1024])
def test_the_projection_learns_no_faster_than_embeddings(width):
    # A first update of Adam moves every weight, an embedding's too, by the learning rate.
    part = SelfConditioning(width, 8)
    states = torch.nn.functional.layer_norm(torch.randn(2, 5, width), (width,))
    optimizer = torch.optim.Adam(part.parameters(), lr=1e-3)
    part(states, None)[0, 0].sum().backward()
    optimizer.step()
    moved = part(states, None).abs().max().item()
    assert 0 < moved <= 1e-3


def test_an_encoder_may_lengthen_its_texts():
    embedded = torch.zeros(1, 5, 2)
    out = add_to_embeddings(embedded, torch.ones(1, 3, 2))
    assert out[0, :, 0].tolist() == [1, 1, 1, 0, 0]
    model = tiny_generator("longformer", self_cond=True)
    text = torch.tensor([[0, 9, 10, 11, 2]])  # its window is 8
    logits = model(input_ids=text, self_condition=True).logits
    wide = torch.nn.functional.pad(text, (0, 3), value=1)
    mask = (wide != 1).long()
    padded = model(input_ids=wide, attention_mask=mask, self_condition=True).logits[:, :5]
    torch.testing.assert_close(padded, logits, atol=1e-4, rtol=1e-4)


# --- the gradient --------------------------------------------------------------------------------


def gradients(model, batch, **options):
    model.zero_grad()
    model(**batch, **options).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_the_pass_before_has_no_part_in_the_gradient(batch):
    model = conditioned(self_cond_train_prob=1.0).train()
    with torch.no_grad():
        states = model(**inputs_of(batch), output_last_hidden_state=True).last_hidden_state
    found = gradients(model, batch)
    expected = gradients(model, batch, previous_hidden_states=states)
    torch.testing.assert_close(found, expected)


def test_under_autocast_the_pass_before_does_not_cut_the_gradient(batch):
    """Autocast remembers weights that it has cast; older torch forgot their gradient so."""
    model = conditioned(self_cond_train_prob=1.0).train()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        states = model(**inputs_of(batch), output_last_hidden_state=True).last_hidden_state
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(model, batch, previous_hidden_states=states)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(model, batch)
    torch.testing.assert_close(found, expected)
    exact = gradients(model, batch)
    for name in ("self_conditioning.weight", "denoiser.bert.encoder.layer.1.output.dense.weight"):
        cosine = torch.cosine_similarity(exact[name].flatten(), found[name].flatten(), 0)
        assert float(cosine) > 0.9


def test_gradient_checkpointing_computes_the_same_text_again(batch):
    model = conditioned(self_cond_train_prob=1.0).train()
    expected = gradients(model, batch)
    model.activation_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(gradients(model, batch), expected)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.75, 1.0])
def test_two_processes_miss_no_gradient(tmp_path, rate):
    options = {"self_cond": True, "self_cond_train_prob": rate}
    before, after = train_two_processes(tmp_path, options)
    for name in ("self_conditioning.weight", "self_conditioning.null"):
        moved = not torch.equal(before[name], after[name])
        assert moved or (rate == 1.0 and name.endswith("null"))


# --- sampling ------------------------------------------------------------------------------------


def test_a_sampler_looks_back_on_each_rows_own_pass_before(monkeypatch):
    """With remasking, and rows that are finished sooner than others."""
    model = conditioned().double()
    text = torch.tensor([[CLS, *[MASK] * 6, SEP], [CLS, 7, MASK, 8, MASK, 9, 10, SEP]])
    forward, last, passes = MaskGitForMaskedLM.forward, {}, []

    def watched(self, **inputs):
        output = forward(self, **inputs)
        has = inputs.get("has_previous")
        for i, row in enumerate(inputs["input_ids"]):
            key = int(row[1] == 7)  # only the second text begins so
            looks_back = has is not None and bool(has[i])
            assert looks_back == (key in last)
            if looks_back:
                assert torch.equal(inputs["previous_hidden_states"][i], last[key])
            last[key] = output.last_hidden_state[i]
            passes.append(key)
        return output

    monkeypatch.setattr(MaskGitForMaskedLM, "forward", watched)
    model.generate(text, seed=1, steps=6, order="random", suppress_tokens=[7])
    assert passes.count(0) > passes.count(1) > 1


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"order": "random", "pace": "ancestral", "remask": "remdm_cap"},
        {"remask": "p2"},
        {"guidance_scale": 1.5},
    ],
)
def test_a_row_writes_the_same_alone_and_in_a_batch(choices):
    model = conditioned().double()
    rows = [[CLS, 7, MASK, MASK, 8, MASK, SEP], [CLS, MASK, 11, SEP], [CLS, 9, 10, MASK, MASK, SEP]]
    options = {"steps": 4, "anneal_temperature": False, **choices}
    alone = [
        model.generate(torch.tensor([row]), seed=[i], **options)[0] for i, row in enumerate(rows)
    ]
    text = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True)
    together = model.generate(text, (text != PAD).long(), seed=[0, 1, 2], **options)
    for row, expected in zip(together, alone, strict=True):
        assert torch.equal(row[: len(expected)], expected)


def test_looking_back_changes_what_is_written():
    model, text = conditioned(), torch.tensor([[CLS, *[MASK] * 12, SEP]])
    blind = copy.deepcopy(model)
    blind.self_conditioning.forward = lambda previous, has: SelfConditioning.forward(
        blind.self_conditioning, None, None
    )
    options = {"seed": 2, "steps": 6, "num_return_sequences": 4, "anneal_temperature": False}
    assert not torch.equal(model.generate(text, **options), blind.generate(text, **options))


def test_memory_keeps_each_rows_newest_states():
    memory = Memory(torch.ones(3, 2, dtype=torch.bool))
    assert memory.recall(torch.tensor([0, 2])) == {}
    memory.keep(torch.tensor([0, 2]), torch.tensor([1.0, 2.0])[:, None, None].expand(2, 2, 4))
    memory.keep(torch.tensor([2]), torch.full((1, 2, 4), 3.0))
    found = memory.recall(torch.tensor([2, 1, 0]))
    assert found["has_previous"].tolist() == [True, False, True]
    assert found["previous_hidden_states"][:, 0, 0].tolist() == [3.0, 0.0, 1.0]


# --- what transformers does with a model ---------------------------------------------------------


def by_hand(model, text):
    first = model(input_ids=text, output_last_hidden_state=True)
    second = model(input_ids=text, previous_hidden_states=first.last_hidden_state).logits
    assert not torch.allclose(first.logits, second, atol=0.1), "the hook is lost"
    return second


TEXT = torch.tensor([[CLS, MASK, 7, MASK, SEP]])


def test_embeddings_instead_of_ids_are_conditioned_too():
    model = conditioned()
    table = copy.deepcopy(model.get_input_embeddings())
    embedded = torch.nn.functional.embedding(TEXT, table.weight)
    logits = model(inputs_embeds=embedded, self_condition=True).logits
    torch.testing.assert_close(logits, by_hand(model, TEXT), atol=1e-5, rtol=1e-5)


def test_resized_and_replaced_embeddings_stay_conditioned():
    model = conditioned()
    expected = by_hand(model, TEXT)
    model.resize_token_embeddings(48)
    logits = model(input_ids=TEXT, self_condition=True).logits
    torch.testing.assert_close(logits[..., :40], expected, atol=1e-5, rtol=1e-5)
    table = torch.nn.Embedding(48, 32)
    table.weight.data.copy_(model.get_input_embeddings().weight)
    model.set_input_embeddings(table)
    assert torch.equal(by_hand(model, TEXT), logits)


def test_a_copy_is_conditioned_by_its_own_projection():
    model = conditioned()
    expected = by_hand(model, TEXT)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model.self_conditioning.weight.zero_()
    assert torch.equal(by_hand(twin, TEXT), expected)


@pytest.mark.wide
def test_it_travels_with_the_checkpoint(tmp_path):
    model = conditioned(self_cond_train_prob=0.5)
    model.save_pretrained(tmp_path)
    for auto in (MaskGitForMaskedLM, AutoModelForMaskedLM):
        loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"]
        assert loaded.config.self_cond_train_prob == 0.5
        for name, weight in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weight), name


def test_a_checkpoint_without_it_gains_it(tmp_path):
    plain = tiny_model()
    plain.save_pretrained(tmp_path)
    model, info = MaskGitForMaskedLM.from_pretrained(
        tmp_path, self_cond=True, output_loading_info=True
    )
    assert info["missing_keys"] == {"self_conditioning.weight", "self_conditioning.null"}
    assert not model.self_conditioning.weight.any()
    assert 0 < model.self_conditioning.null.std().item() < 0.1
    logits = model(input_ids=TEXT, self_condition=True).logits
    torch.testing.assert_close(logits, plain(input_ids=TEXT).logits, atol=1e-5, rtol=1e-5)


def test_it_is_made_in_the_number_format_of_the_encoder():
    encoder = tiny_model().denoiser.to(torch.bfloat16)
    model = MaskGitForMaskedLM.from_encoder(encoder, tokenizer=word_tokenizer(), self_cond=True)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    model(input_ids=TEXT, self_condition=True)


@pytest.mark.slow
def test_a_compiler_makes_one_graph_of_both_passes():
    model, positions = conditioned(), TEXT == MASK
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for options in ({"self_condition": True}, {"output_last_hidden_state": True}):
            found = compiled(input_ids=TEXT, masked_positions=positions, **options).logits
            expected = model(input_ids=TEXT, masked_positions=positions, **options).logits
            torch.testing.assert_close(found, expected)
    torch._dynamo.reset()


# --- the bound -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_words():
    """A network over three words that looks twice, and the tables of its one and two passes."""
    config = MaskGitConfig(
        text_config=bert_config(vocab_size=8, pad_token_id=0),
        mask_token_id=MASK,
        pad_token_id=PAD,
        special_token_ids=[0, 1, 2, 3, 4],
        self_cond=True,
    )
    torch.manual_seed(5)
    model = MaskGitForMaskedLM(config).double().eval()
    torch.nn.init.normal_(model.self_conditioning.weight, std=0.5)
    states = list(itertools.product(range(4), repeat=4))  # 3 stands for the mask
    shown = torch.tensor([[MASK if s == 3 else 5 + s for s in state] for state in states])
    oracles = {}
    for looks_twice in (False, True):
        with torch.no_grad():
            logits = model(input_ids=shown, self_condition=looks_twice).logits[..., 5:]
        table = np.empty((4, 4, 4, 4, 4, 3))
        for state, scores in zip(states, logits.log_softmax(-1).numpy(), strict=True):
            table[state] = scores
        oracles[looks_twice] = TableDenoiser({4: table})
    return model, oracles


def test_both_estimators_bound_the_distribution_of_the_sampler_that_makes_their_passes(three_words):
    """By enumeration: each is a distribution over all 81 texts, its bound lies above everywhere."""
    _, oracles = three_words
    for oracle in oracles.values():
        texts = all_texts(3, 4)
        costs = [negative_log_likelihood(oracle, text) for text in texts]
        assert sum(math.exp(-cost) for cost in costs) == pytest.approx(1)
        gaps = [bound(oracle, text) - cost for text, cost in zip(texts, costs, strict=True)]
        assert min(gaps) >= 0
        assert max(gaps) > 0.01
    text = (0, 2, 1, 1)
    assert abs(bound(oracles[True], text) - bound(oracles[False], text)) > 0.3


@pytest.mark.parametrize("looks_twice", [False, wide(True), None])
def test_the_estimate_is_that_of_the_enumeration(three_words, looks_twice):
    """Within 4.5 standard errors: a false alarm comes once in 150,000."""
    model, oracles = three_words
    text = (0, 2, 1, 1)
    ids = torch.tensor([[5 + token for token in text]]).expand(2000, 4)
    generator = torch.Generator().manual_seed(3)
    found = nelbo(model, ids, num_samples=8, generator=generator, self_condition=looks_twice)
    expected = bound(oracles[looks_twice is not False], text)
    error = float(found.nats.std() / math.sqrt(2000))
    assert error < 0.05
    assert abs(float(found.nats.mean()) - expected) < 4.5 * error
    assert found.estimator == (ONE_PASS if looks_twice is False else TWO_PASSES)


def test_evaluation_says_which_estimator_it_used():
    model, tokenizer = conditioned(), word_tokenizer()
    texts = [{"input_ids": row} for row in tokenizer(TEXTS)["input_ids"]]
    options = {"num_samples": 4, "progress": False}
    before = torch.get_rng_state()
    two = evaluate_nelbo(model, texts, tokenizer, **options)
    one = evaluate_nelbo(model, texts, tokenizer, self_condition=False, **options)
    assert torch.equal(torch.get_rng_state(), before)
    assert (two.estimator, one.estimator) == (TWO_PASSES, ONE_PASS)
    assert not torch.allclose(two.nats, one.nats)
    assert evaluate_nelbo(tiny_model(), texts, tokenizer, **options).estimator == ONE_PASS
    with pytest.raises(ValueError, match="bounds are of different estimators: one pass and two pa"):
        NelboOutput.concatenate([one, two])


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("ibert", "'ibert' are a QuantEmbedding, to which nothing can be added. Set self_cond=F"),
        ("fnet", "not available for 'fnet', which runs without padding.*Set self_cond=False"),
        ("funnel", "not available for 'funnel', which runs without padding"),
    ],
)
def test_an_encoder_that_cannot_be_conditioned(kind, why):
    with pytest.raises(ValueError, match=why):
        MaskGitForMaskedLM(
            MaskGitConfig(text_config=tiny_encoder_config(kind), mask_token_id=MASK, self_cond=True)
        )


@pytest.mark.parametrize(
    ("has_it", "arguments", "match"),
    [
        (False, {"self_condition": True}, "model has no self-conditioning to give previous"),
        (False, {"previous_hidden_states": 5}, "set self_cond=True in its config and train it"),
        (True, {"previous_hidden_states": 5, "self_condition": True}, "give one of the two"),
        (True, {"has_previous": torch.tensor([True])}, "says which rows of `previous_hidden_state"),
        (True, {"previous_hidden_states": 4}, r"hidden size\) = \(1, 5, 32\), got \(1, 4, 32\)"),
    ],
)
def test_arguments_that_do_not_fit(has_it, arguments, match):
    arguments = dict(arguments)
    if "previous_hidden_states" in arguments:
        arguments["previous_hidden_states"] = torch.zeros(
            1, arguments["previous_hidden_states"], 32
        )
    with pytest.raises(ValueError, match=match):
        tiny_model(self_cond=has_it)(input_ids=TEXT, **arguments)


def test_two_passes_of_a_model_that_makes_one():
    with pytest.raises(ValueError, match="asks for a second pass that looks back on the first"):
        nelbo(tiny_model(), torch.tensor([[CLS, 7, SEP]]), self_condition=True)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_that_is_no_probability(rate):
    with pytest.raises(ValueError, match=r"`self_cond_train_prob` is a probability"):
        tiny_config(self_cond=True, self_cond_train_prob=rate)
