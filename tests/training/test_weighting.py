"""Weights of losses: each by its formula, and named where the loss is no bound."""

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch.optim import SGD

from hf_maskgit import DataCollatorForMaskGit
from hf_maskgit.hub.training_card import learning_settings
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.updates import take_update
from hf_maskgit.training.weighting import WEIGHTINGS, Weigher
from tests.support.tiny import tiny_model, word_tokenizer
from tests.support.tiny_training import assert_same_weights, examples, log_of, loop_of
from tests.training.test_updates import update_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")
BAND = (1.5, 3.0)


def weights_by_hand(name, weights, probabilities):
    """What each chosen token weighs."""
    return {
        "bound": lambda: weights,
        "clipped": lambda: weights.clamp(*BAND),
        "confidence": lambda: weights * (1 + probabilities),
    }[name]()


def gradient_by_hand(name, model, batch):
    """All logits, the weights of the formula as constants, one sum, one division."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logits[..., model.config.forbidden_token_ids] = -torch.inf
    losses = F.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none")
    chosen = batch["masked_positions"]
    probabilities = torch.exp(-losses[chosen]).detach()
    weights = weights_by_hand(name, batch["loss_weights"][chosen].double(), probabilities)
    loss = (losses[chosen] * weights).sum() / (batch["labels"] != -100).sum()
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in model.named_parameters()}


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("size", [8, 3])
def test_an_update_has_the_gradient_of_the_formula(name, size):
    batch = update_of(8)
    loss, expected = gradient_by_hand(name, tiny_model().double(), batch)
    model = tiny_model().double()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, SGD(model.parameters(), lr=1.0))
    band = BAND if WEIGHTINGS[name].clips else None
    weigher = Weigher(WEIGHTINGS[name], band, model.config.forbidden_token_ids)
    update = take_update(accelerator, prepared, optimizer, batch, size, 0.0, weigher=weigher)
    assert float(update.loss) == pytest.approx(loss, abs=1e-6)
    for n, p in model.named_parameters():
        gradient = torch.zeros_like(p) if expected[n] is None else expected[n]
        torch.testing.assert_close(before[n] - p.detach(), gradient, atol=1e-8, rtol=1e-6)


def test_the_weight_of_the_bound_is_n_over_k_as_the_help_says():
    rows = [{"input_ids": [2, *range(5, 15), 3], "example_id": i} for i in range(8)]
    batch = DataCollatorForMaskGit(word_tokenizer())(rows)
    chosen = batch["masked_positions"]
    counts = chosen.sum(1, keepdim=True).expand_as(chosen)
    expected = ((batch["labels"] != -100).sum(1, keepdim=True) / counts)[chosen]
    torch.testing.assert_close(batch["loss_weights"][chosen], expected)


@pytest.mark.wide
def test_a_run_with_both_losses_adds_up(tmp_path):
    options = {"loss_weighting": "confidence"}
    loop = loop_of(tmp_path / "run", {"token_critic": "self", "critic_loss_weight": 0.5}, **options)
    loop.run()
    losses, denoiser, critic = (
        log_of(tmp_path / "run", name) for name in ("loss", "denoiser_loss", "critic_loss")
    )
    assert losses
    for step, loss in losses.items():
        assert loss == pytest.approx(denoiser[step] + 0.5 * critic[step], rel=1e-5)


@pytest.mark.wide
@pytest.mark.parametrize(
    "options",
    [{"loss_weighting": "clipped", "clip_weights": [1.0, 2.0]}, {"loss_weighting": "confidence"}],
    ids=str,
)
def test_what_is_no_bound_is_said_and_evaluations_are_the_bound_all_the_same(
    tmp_path, caplog, options
):
    loop = loop_of(tmp_path / "run", eval_examples=examples(8, 1), **options)
    plain = loop_of(tmp_path / "plain", eval_examples=examples(8, 1))
    (said,) = [line for line in caplog.messages if "no bound on the likelihood" in line]
    assert options["loss_weighting"] in said
    for one in (loop, plain):  # before either learns: the same weights
        one.evaluations.measure(None)
    assert_same_weights(loop.model.state_dict(), plain.model.state_dict())
    assert torch.equal(loop.bound.nats, plain.bound.nats)
    loop.run()
    plain.run()
    assert log_of(tmp_path / "run")[1] != log_of(tmp_path / "plain")[1]
    settings = learning_settings(loop.model.config, loop.options, "no")
    assert "the loss of training is no bound" in settings["loss weighting"]
    assert "loss weighting" not in learning_settings(plain.model.config, plain.options, "no")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss_weighting": "none"}, "`loss_weighting` must be one of bound, clipped, confidence"),
        ({"loss_weighting": "clipped"}, "`clip_weights` and loss_weighting='clipped' go together"),
        ({"clip_weights": [1, 2]}, "`clip_weights` and loss_weighting='clipped' go together"),
        ({"loss_weighting": "clipped", "clip_weights": [2.0, 1.0]}, "takes two numbers.*got 2.0 1"),
        ({"loss_weighting": "clipped", "clip_weights": [1.0]}, "takes two numbers.*got 1.0"),
        (
            {"loss_weighting": "confidence", "train": "critic"},
            "weighs the loss of the denoiser, which is not taken with train='critic'",
        ),
        (
            {"loss_weighting": "confidence", "time_sampler": "importance"},
            "time_sampler='importance' corrects the weights of the bound, and loss_weighting='conf",
        ),
    ],
)
def test_weightings_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        TrainArguments(output_dir="run", **options)


def test_weights_that_are_all_one_cannot_be_clipped(tmp_path):
    options = {"loss_weighting": "clipped", "clip_weights": [1.0, 2.0]}
    with pytest.raises(ValueError, match="limits weights, and with use_simple_mdlm_loss_weight=Fa"):
        loop_of(tmp_path / "run", {"use_simple_mdlm_loss_weight": False}, **options)
