"""What transformers knows after `import hf_maskgit`, whichever of both was imported first."""

import copy
import importlib
import pickle
import subprocess
import sys
from collections import OrderedDict
from types import SimpleNamespace

import pytest
from transformers import AutoConfig, BertConfig, BertForMaskedLM, BertModel
from transformers.models.auto import configuration_auto, modeling_auto
from transformers.models.auto.auto_factory import _LazyAutoMapping
from transformers.models.auto.configuration_auto import _LazyConfigMapping
from transformers.pipelines import PIPELINE_REGISTRY

import hf_maskgit
from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM, registration
from hf_maskgit.core.pipeline_fill_mask import FillMaskDispatch
from hf_maskgit.core.pipeline_infilling import InfillingPipeline
from hf_maskgit.core.pipeline_text_generation import TextGenerationDispatch
from tests.support.tiny import tiny_model, word_tokenizer


class OtherConfig(BertConfig):
    model_type = "other"


class OtherModel(BertForMaskedLM):
    config_class = OtherConfig


def configurations():
    mapping = _LazyConfigMapping(OrderedDict(bert="BertConfig"))
    mapping.register("other", OtherConfig)
    return mapping


def models():
    mapping = _LazyAutoMapping(OrderedDict(bert="BertConfig"), OrderedDict(bert="BertForMaskedLM"))
    mapping.register(OtherConfig, OtherModel)
    return mapping


# A mapping as transformers makes it, small; our table of entries; what is registered; other keys.
MAPPINGS = {
    "CONFIG_MAPPING": (
        configurations,
        registration.CONFIGURATIONS,
        ("maskgit", MaskGitConfig),
        ("bert", "other"),
    ),
    "MODEL_FOR_MASKED_LM_MAPPING": (
        models,
        registration.MODELS,
        (MaskGitConfig, MaskGitForMaskedLM),
        (BertConfig, OtherConfig),
    ),
}
LOOKS = {
    "in": lambda mapping, key: key in mapping,
    "[]": lambda mapping, key: mapping[key],
    "get": lambda mapping, key: mapping.get(key, None),
    "keys": lambda mapping, key: list(mapping.keys()),
    "values": lambda mapping, key: list(mapping.values()),
    "items": lambda mapping, key: list(mapping.items()),
    "iter": lambda mapping, key: list(mapping),
    "bool": lambda mapping, key: bool(mapping),
    "copy": lambda mapping, key: copy.deepcopy(mapping)[key],
    "pickle": lambda mapping, key: pickle.loads(pickle.dumps(mapping))[key],
    "extra in": lambda mapping, key: key in mapping._extra_content,
    "extra len": lambda mapping, key: len(mapping._extra_content),
    "extra values": lambda mapping, key: list(mapping._extra_content.values()),
    "extra pop": lambda mapping, key: (mapping._extra_content.pop(key), key in mapping),
    "extra del": lambda mapping, key: (mapping._extra_content.__delitem__(key), key in mapping),
}


def with_ours(name, load=None):
    """A small mapping with our entry as the import adds it; `load` notes that it is loaded."""
    make, table, *_ = MAPPINGS[name]
    mapping, (key, ours) = make(), table[name]
    entries = {name: (key, load or ours)}
    registration.add_entries(entries, SimpleNamespace(**{name: mapping}))
    return mapping


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", MAPPINGS)
def test_an_entry_is_as_if_it_had_been_registered(name, look):
    make, _, entry, _ = MAPPINGS[name]
    registered, ours = make(), with_ours(name)
    registered.register(*entry)
    assert LOOKS[look](ours, entry[0]) == LOOKS[look](registered, entry[0])
    assert dict(ours._extra_content) == registered._extra_content
    assert type(ours._extra_content) is dict  # as it was


@pytest.mark.parametrize("look", ["in", "[]", "get", "extra in", "extra pop", "extra del"])
@pytest.mark.parametrize("name", MAPPINGS)
def test_who_looks_at_another_entry_loads_nothing(name, look):
    def load():
        raise AssertionError("loaded")

    make, *_, others = MAPPINGS[name]
    for key in others[1:] if look.startswith("extra ") else others:
        assert LOOKS[look](with_ours(name, load), key) == LOOKS[look](make(), key)
    with_ours(name, load).register(others[1], BertModel, exist_ok=True)


@pytest.mark.parametrize("name", MAPPINGS)
def test_what_others_register_for_the_same_key_counts(name):
    _, _, (key, _), _ = MAPPINGS[name]
    ours = with_ours(name)
    ours.register(key, BertModel, exist_ok=True)
    assert ours[key] is BertModel
    assert list(ours._extra_content.values()).count(BertModel) == 1


def test_entries_added_twice_are_there_once():
    mapping = with_ours("CONFIG_MAPPING")
    module = SimpleNamespace(CONFIG_MAPPING=mapping)
    for _ in range(2):
        registration.add_entries(registration.CONFIGURATIONS, module)
        assert list(mapping) == ["bert", "other", "maskgit"]


def test_the_names_of_keys_are_those_of_the_classes():
    """They stand in a table, as the classes are not loaded when it is read."""
    assert registration.CONFIGURATIONS["CONFIG_MAPPING"][0] == MaskGitConfig.model_type
    assert {name for name, _ in registration.MODELS.values()} == {MaskGitConfig.__name__}


def test_transformers_knows_the_classes():
    assert type(AutoConfig.for_model("maskgit")) is MaskGitConfig
    assert modeling_auto.AutoModelForMaskedLM._model_mapping[MaskGitConfig] is MaskGitForMaskedLM
    causal = modeling_auto.AutoModelForCausalLM._model_mapping[MaskGitConfig]
    assert issubclass(causal, MaskGitForMaskedLM)
    assert causal is modeling_auto.AutoModelForCausalLM._model_mapping[MaskGitConfig]


def test_the_pipelines_that_are_named_are_ours():
    from transformers.pipelines import _resolve_impl

    kinds = {
        "infilling": InfillingPipeline,
        "text-generation": TextGenerationDispatch,
        "fill-mask": FillMaskDispatch,
    }
    tasks = PIPELINE_REGISTRY.supported_tasks
    assert {task: _resolve_impl(tasks[task]["impl"]) for task in kinds} == kinds
    assert tasks["infilling"]["pt"] == (modeling_auto.AutoModelForMaskedLM,)
    assert tasks["infilling"]["type"] == "text"


def test_reloading_registers_anew():
    importlib.reload(hf_maskgit)
    assert configuration_auto.CONFIG_MAPPING["maskgit"] is MaskGitConfig
    assert hf_maskgit.MaskGitForMaskedLM is MaskGitForMaskedLM


# --- in processes of their own, as the order of imports matters -----------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    tiny_model("bert").save_pretrained(path)
    word_tokenizer().save_pretrained(path)
    return str(path)


def printed_by(program, *words):
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# Our import before and after each of theirs, in a copy of a process that has imported neither.
ORDERS = """
import os, sys, traceback
import torch, transformers

folder = sys.argv[1]
KINDS = {
    "AutoConfig": ["MaskGitConfig"],
    "AutoModelForMaskedLM": ["MaskGitForMaskedLM"],
    "AutoModelForCausalLM": ["MaskGitForMaskedLM"],
    "pipeline": ["InfillingPipeline", "MaskGitTextGenerationPipeline", "MaskGitFillMaskPipeline"],
}
AUTO = "transformers.models.auto"
TASKS = ["infilling", "text-generation", "fill-mask"]

def check(name, lines):
    assert not [m for m in sys.modules if m.startswith("hf_maskgit")]
    assert not {f"{AUTO}.modeling_auto", f"{AUTO}.configuration_auto"} & set(sys.modules)
    assert "transformers.pipelines" not in sys.modules
    for line in lines:
        exec(line, names := globals())
    kind = names[name]
    if name == "pipeline":
        made = [kind(task, model=folder) for task in TASKS]
    else:
        made = [kind.from_pretrained(folder)]
    assert [type(one).__name__ for one in made] == KINDS[name], (lines, made)

for name in KINDS:
    ours, theirs = "import hf_maskgit", f"from transformers import {name}"
    for lines in ([ours, theirs], [theirs, ours]):
        child = os.fork()
        if child == 0:
            try:
                check(name, lines)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print("right" if os.waitpid(child, 0)[1] == 0 else "wrong")
"""


@pytest.mark.slow
def test_a_checkpoint_is_known_in_either_order_of_imports(folder):
    assert printed_by(ORDERS, folder) == ["right"] * 8


THREADS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import transformers  # itself not to be imported by threads: it exchanges its module for another

folder, start = sys.argv[1], threading.Barrier(8)

def work(number):
    start.wait()
    if number % 2:
        import hf_maskgit
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, pipelines
    import hf_maskgit
    config = type(AutoConfig.from_pretrained(folder))
    return (
        config,
        AutoModelForMaskedLM._model_mapping[config],
        AutoModelForCausalLM._model_mapping[config],
        pipelines.check_task("infilling")[1]["impl"],
        pipelines.check_task("fill-mask")[1]["impl"],
    )

with ThreadPoolExecutor(8) as threads:
    found = set(threads.map(work, range(8)))
print(*(getattr(one, "__name__", one) for one in found.pop()), len(found))
"""


@pytest.mark.slow
def test_eight_threads_that_import_at_once_all_know_the_library(folder):
    kinds = ["MaskGitConfig", "MaskGitForMaskedLM", "MaskGitForMaskedLM"]
    places = "pipeline_infilling.InfillingPipeline", "pipeline_fill_mask.FillMaskDispatch"
    named = [f"hf_maskgit.core.{place}" for place in places]
    assert printed_by(THREADS, folder) == [*kinds, *named, "0"]


RELOADED = """
import hf_maskgit
from importlib import reload
from transformers.models.auto import configuration_auto

reload(configuration_auto)
print(configuration_auto.CONFIG_MAPPING["maskgit"].__name__)
"""


@pytest.mark.slow
def test_a_reloaded_module_of_transformers_knows_us_again():
    assert printed_by(RELOADED) == ["MaskGitConfig"]
