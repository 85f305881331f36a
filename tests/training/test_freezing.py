"""Freezing: what is named does not learn, all else does, and a name that nothing has is refused."""

import pytest

from hf_maskgit.training.freezing import freeze_named
from tests.support.tiny import tiny_model
from tests.support.tiny_training import loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def frozen_by(*names, **options):
    model = tiny_model(**options)
    before = {name for name, p in model.named_parameters() if not p.requires_grad}
    freeze_named(model, names)
    return {name for name, p in model.named_parameters() if not p.requires_grad} - before


def test_parts_modules_and_patterns_are_frozen():
    everything = {name for name, p in tiny_model().named_parameters() if p.requires_grad}
    embeddings = {name for name in everything if ".embeddings." in name}
    assert frozen_by("embeddings") == embeddings
    body = {name for name in everything if name.startswith("denoiser.bert.")}
    assert frozen_by("encoder") == body
    assert frozen_by("head") == everything - body
    first = {name for name in everything if ".layer.0." in name}
    assert frozen_by("denoiser.bert.encoder.layer.0") == first
    assert frozen_by("*.layer.[0-0].*") == first
    assert frozen_by("*.layer.0.*", "embeddings") == first | embeddings
    bias = "denoiser.cls.predictions.bias"
    assert frozen_by(bias) == {bias}
    parts = {"token_critic": "self", "self_cond": True}
    assert frozen_by("critic_head", **parts) == {"critic_head.weight", "critic_head.bias"}


def test_what_is_frozen_stays_and_all_else_learns(tmp_path):
    loop = loop_of(tmp_path / "run", freeze=["embeddings", "*.layer.0.*"])
    before = {name: p.detach().clone() for name, p in loop.model.named_parameters()}
    loop.run()
    for name, parameter in loop.model.named_parameters():
        stays = ".embeddings." in name or ".layer.0." in name
        assert before[name].equal(parameter.detach()) == stays, name


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["embedding"], r"`freeze` names 'embedding', .* \(embeddings, encoder, head\)"),
        (["*.layers.*"], "which nothing in the model has"),
        (["denoiser.bert.encoder.layer.7"], "close to it are 'denoiser.bert.encoder.layer"),
        (["encoder", "head"], "With `freeze` encoder, head nothing of the model would learn"),
    ],
)
def test_names_that_nothing_has_and_all_that_there_is_are_refused(tmp_path, names, said):
    with pytest.raises(ValueError, match=said):
        loop_of(tmp_path / "run", freeze=names)
