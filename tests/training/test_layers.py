"""Places of weights: every type of encoder numbers its layers, or says that it cannot."""

import re

import pytest

from hf_maskgit.training.layers import depths_of, embeddings_of
from tests.support.support_matrix import tiny_generator
from tests.support.tiny import tiny_encoder

# With one group of weights for all layers; with pooled blocks and a decoder behind them.
NO_LAYERS = {"albert", "funnel"}
KINDS = """albert bert big_bird camembert convbert data2vec-text deberta deberta-v2 distilbert
electra ernie esm eurobert flaubert fnet funnel ibert layoutlm longformer luke megatron-bert
mobilebert modernbert modernvbert mpnet neomme nomic_bert nystromformer rembert roberta
roberta-prelayernorm roc_bert roformer squeezebert tapas xlm xlm-roberta xlm-roberta-xl xmod
yoso""".split()


def check_places(kind):
    encoder = tiny_generator(kind).denoiser
    table = encoder.get_input_embeddings().weight
    assert any(parameter is table for parameter in embeddings_of(encoder))
    if kind in NO_LAYERS:
        with pytest.raises(ValueError, match="cannot be told apart: its configuration says"):
            depths_of(encoder)
        return
    depths = depths_of(encoder)
    assert depths.keys() == {id(p) for p in encoder.parameters()}
    assert depths[id(table)] == 0
    num_layers = encoder.config.get_text_config().num_hidden_layers
    found = {name: depths[id(p)] for name, p in encoder.named_parameters() if p.requires_grad}
    assert set(found.values()) <= set(range(num_layers + 2))
    for name, place in found.items():
        numbers = re.findall(r"\.(\d+)\.", name)
        if 0 < place <= num_layers:  # the first number of a path is the layer's
            assert int(numbers[0]) == place - 1, name
        else:
            assert not re.search(r"layers?\.\d+\.", name), name
    assert {place for place in found.values() if 0 < place <= num_layers} == {1, 2}


@pytest.mark.parametrize("kind", ["albert", "bert", "funnel", "modernbert", "xlm"])
def test_a_kind_numbers_its_layers_or_says_that_it_cannot(kind):
    check_places(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_numbers_its_layers_or_says_that_it_cannot(kind):
    check_places(kind)


def test_places_of_bert_by_name():
    encoder = tiny_encoder("bert")
    depths = depths_of(encoder)
    for name, parameter in encoder.named_parameters():
        expected = 3
        if name.startswith("bert.embeddings"):
            expected = 0
        elif ".layer." in name:
            expected = 1 + int(name.split(".layer.")[1].split(".")[0])
        assert depths[id(parameter)] == expected, name
