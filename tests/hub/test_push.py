"""Pushing to a Hub and loading from it, against a small one on loopback.

huggingface_hub reads the Hub's address when it is imported, so all that talks to the server runs in
one process of its own (`client`). What is to be found there is computed here, from models in
memory.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest import mock

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, constants
from peft import LoraConfig, PeftConfig
from safetensors.torch import save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from hf_maskgit import MaskGitForMaskedLM, MaskGitGenerationConfig
from hf_maskgit.hub.card import GeneratorCard, write_model_card
from hf_maskgit.hub.push import Push, check_access, check_metadata, open_repository, upload
from tests.support.hub_server import HubServer, Repository
from tests.support.tiny import tiny_encoder, tiny_model, word_tokenizer
from tests.support.tiny_training import write_inputs

pytestmark = pytest.mark.wide  # the process of the client takes as long as a hundred tests

TEXT = "w1 [MASK] w3 [MASK] w5"
CARD = GeneratorCard(
    model_id="a-folder",
    encoder="some-encoder",
    training_data="Verses of a book.",
    masked_example="w1 [MASK] w3",
    prompt_example="w1 w2",
    license="mit",
    base_model="some-owner/some-encoder",
    language=["en"],
)


class Client:
    """Runs functions of this module in a process that knows the server."""

    def __init__(self, environment):
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        with mock.patch.dict(os.environ, environment):  # a new process inherits it
            self._pool.submit(os.getpid).result()

    def __call__(self, function, *args, **kwargs):
        return self._pool.submit(function, *args, **kwargs).result()

    def close(self):
        self._pool.shutdown()


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    process = Client({**hub.environment(home), "OMP_NUM_THREADS": "1"})
    yield process
    process.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two generators of different weights and options, saved: their folders."""
    saved = []
    for seed, steps in ((1, 5), (2, 7)):
        folder = tmp_path_factory.mktemp(f"generator-{seed}")
        model = tiny_model(seed=seed)
        model.generation_config.steps = steps
        model.generation_config.order = "random"
        model.save_pretrained(folder)
        word_tokenizer().save_pretrained(folder)
        write_model_card(folder, CARD)
        saved.append(folder)
    return saved


@pytest.fixture(scope="module")
def commits(client, folders):
    """The same two, pushed one after the other to tester/verses: their commits."""
    return [client(push_pieces, folder, "tester/verses") for folder in folders]


def logits_of(model):
    inputs = word_tokenizer()(TEXT, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.tolist()


# Somebody who has transformers but not this package: loads revisions, and runs the card's Python
STRANGER = """
import json, re, sys
sys.modules["hf_maskgit"] = None  # an import of it fails
from huggingface_hub import ModelCard
from transformers import AutoModelForMaskedLM, AutoTokenizer

name, text, *revisions = sys.argv[1:]
(code,) = re.findall("^```python\\n(.*?)^```$", ModelCard.load(name).text, re.S | re.M)
exec(code)
found = []
for revision in revisions:
    options = {"revision": revision, "trust_remote_code": True}
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    model = AutoModelForMaskedLM.from_pretrained(name, **options)
    found.append(model(**tokenizer(text, return_tensors="pt")).logits.tolist())
print(json.dumps(found))
"""


# What runs in the client's process


def push_pieces(folder, name):
    """Push each part by its own method, as one would by hand; return the commit."""
    MaskGitForMaskedLM.from_pretrained(folder).push_to_hub(name)
    AutoTokenizer.from_pretrained(folder).push_to_hub(name)
    MaskGitGenerationConfig.from_pretrained(folder).push_to_hub(name)
    ModelCard.load(folder / "README.md").push_to_hub(name)
    return HfApi().model_info(name).sha


def push_with_code(folder, name):
    AutoTokenizer.from_pretrained(folder).push_to_hub(name)
    MaskGitForMaskedLM.from_pretrained(folder).push_to_hub(name, with_code=True)
    return HfApi().model_info(name).sha


def push_encoder(seed, name):
    torch.manual_seed(seed)
    model = tiny_encoder()
    model.push_to_hub(name)
    word_tokenizer().push_to_hub(name)
    return HfApi().model_info(name).sha, logits_of(model)


def loaded(class_name, name, **options):
    """Logits, options of decoding and class of a model loaded by name."""
    classes = {"ours": MaskGitForMaskedLM, "auto": AutoModelForMaskedLM}
    model = classes[class_name].from_pretrained(name, **options)
    return logits_of(model), model.generation_config.to_dict(), type(model).__name__


def from_encoder(name, **options):
    return logits_of(MaskGitForMaskedLM.from_encoder(name, **options))


def tokens_and_options(name, revision):
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    options = MaskGitGenerationConfig.from_pretrained(name, revision=revision)
    return tokenizer(TEXT)["input_ids"], options.to_dict()


def card_of(name):
    card = ModelCard.load(name)
    return card.text, card.data.to_dict()


def piped(task, name, text, **options):
    return pipeline(task, model=name)(text, **options)


def rank_of_adapters(name):
    return PeftConfig.from_pretrained(name, subfolder="adapter").r


def error_of(function, *args, **kwargs):
    """Kind and message of what a call raises; not every error survives between processes."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def push_staged(folder, name, **options):
    return upload(Push(folder=folder, repo_id=name, **options), folder)


def with_token(token, function, *args):
    with mock.patch.dict(os.environ, {"HF_TOKEN": token}):
        return error_of(function, *args)


def where_nobody_listens(function, *args):
    with mock.patch.object(constants, "ENDPOINT", "http://127.0.0.1:1"):
        return error_of(function, *args)


def create_private(folder, name):
    HfApi().create_repo(name, private=True)
    MaskGitForMaskedLM.from_pretrained(folder).push_to_hub(name)


def run_script(script, words):
    return error_of(importlib.import_module(f"scripts.{script}").main, words)


# Loading


@pytest.mark.parametrize("class_name", ["ours", "auto"])
def test_each_revision_loads_as_it_was_pushed(client, folders, commits, class_name):
    expected = [logits_of(tiny_model(seed=seed)) for seed in (1, 2)]
    assert expected[0] != expected[1]
    revisions = [*commits, "main"]
    found = [client(loaded, class_name, "tester/verses", revision=r) for r in revisions]
    assert [logits for logits, _, _ in found] == [*expected, expected[1]]
    assert [options["steps"] for _, options, _ in found] == [5, 7, 7]
    assert {kind for _, _, kind in found} == {"MaskGitForMaskedLM"}
    assert client(loaded, class_name, "tester/verses")[0] == expected[1]


def test_tokenizer_and_options_of_decoding_come_back_by_revision(client, folders, commits):
    for folder, commit, steps in zip(folders, commits, (5, 7), strict=True):
        tokens, options = client(tokens_and_options, "tester/verses", commit)
        assert tokens == word_tokenizer()(TEXT)["input_ids"]
        assert options == MaskGitGenerationConfig.from_pretrained(folder).to_dict()
        assert (options["steps"], options["order"]) == (steps, "random")


def test_the_hub_shows_the_card(client, commits):
    text, data = client(card_of, "tester/verses")
    assert "Verses of a book." in text
    assert data == {
        "base_model": "some-owner/some-encoder",
        "language": ["en"],
        "library_name": "hf_maskgit",
        "license": "mit",
        "pipeline_tag": "text-generation",
        "tags": ["masked-diffusion", "maskgit", "infilling", "fill-mask"],
    }


def test_an_encoder_becomes_a_generator_by_name_and_revision(client):
    (old, of_old), (_, of_new) = (
        client(push_encoder, seed, "tester/plain-bert") for seed in (1, 2)
    )
    assert of_old != of_new
    assert client(from_encoder, "tester/plain-bert", revision=old) == of_old
    assert client(from_encoder, "tester/plain-bert") == of_new


@pytest.mark.parametrize(
    ("task", "text", "options"),
    [
        ("text-generation", "w1 w2", {"seed": 0}),
        ("infilling", "w1 {blank:2} [MASK] w5", {"seed": 0}),
        ("fill-mask", "w1 [MASK] w3", {}),
    ],
)
def test_pipelines_take_a_name(client, folders, commits, task, text, options):
    here = pipeline(task, model=str(folders[1]))(text, **options)
    assert client(piped, task, "tester/verses", text, **options) == here


def test_what_is_not_there_is_said_clearly(client, commits):
    kind, words = client(error_of, loaded, "ours", "tester/nothing")
    assert kind == "OSError"
    assert "tester/nothing is not a local folder and is not a valid model identifier" in words
    kind, words = client(error_of, loaded, "ours", "tester/verses", revision="nowhere")
    assert kind == "OSError"
    assert "nowhere is not a valid git identifier" in words


def test_a_private_model_needs_the_token(client, folders):
    client(create_private, folders[0], "tester/secret")
    assert client(loaded, "ours", "tester/secret")[0] == logits_of(tiny_model(seed=1))
    kind, words = client(error_of, loaded, "auto", "tester/secret", token=False)
    assert kind == "OSError"
    assert "private repository" in words


# Pushing


def test_a_former_pushs_weights_do_not_outlive_it(client, hub, tmp_path):
    """transformers loads `model.safetensors` before any shards, whatever the index says."""
    for seed, size in ((1, "50GB"), (2, "20KB")):
        folder = tmp_path / str(seed)
        tiny_model(seed=seed).save_pretrained(folder, max_shard_size=size)
        client(push_staged, folder, "tester/shards")
    assert "model.safetensors.index.json" in hub.files("tester/shards")
    assert "model.safetensors" not in hub.files("tester/shards")
    assert client(loaded, "ours", "tester/shards")[0] == logits_of(tiny_model(seed=2))


def test_adapters_come_from_the_hub_and_do_not_outlive_their_model(client, hub, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    LoraConfig(r=2, target_modules=["query"]).save_pretrained(tmp_path / "adapter")
    save_file({"a": torch.ones(2)}, tmp_path / "adapter" / "adapter_model.safetensors")
    client(push_staged, tmp_path, "tester/adapted")
    found = {name for name in hub.files("tester/adapted") if name.startswith("adapter/")}
    assert found == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    assert client(rank_of_adapters, "tester/adapted") == 2
    shutil.rmtree(tmp_path / "adapter")
    client(push_staged, tmp_path, "tester/adapted")
    assert not any(name.startswith("adapter/") for name in hub.files("tester/adapted"))


def test_a_push_may_go_to_a_branch_and_be_private(client, hub, folders):
    first = client(push_staged, folders[0], "branched", private=True)
    assert first == f"{hub.address}/tester/branched"
    page = client(push_staged, folders[1], "branched", branch="try/other", commit_message="Other")
    assert page == f"{hub.address}/tester/branched/tree/try/other"
    assert hub.repositories["tester/branched"].private
    found = [client(loaded, "ours", "tester/branched", revision=r) for r in ("main", "try/other")]
    assert [logits for logits, _, _ in found] == [logits_of(tiny_model(seed=s)) for s in (1, 2)]


def test_what_is_to_be_private_does_not_go_where_everybody_sees_it(client, hub, folders):
    client(push_staged, folders[0], "seen")
    kept = dict(hub.files("tester/seen"))
    kind, words = client(error_of, push_staged, folders[1], "seen", private=True)
    assert kind == "HubError"
    assert words.startswith("The repository 'tester/seen' is there already and public")
    assert hub.files("tester/seen") == kept


def test_a_name_alone_is_one_of_your_own(client, hub):
    assert client(check_access, "new") == "tester/new"
    assert "tester/new" not in hub.repositories
    for _ in range(2):  # one that is there already is as good
        assert client(open_repository, "new") == "tester/new"
    assert hub.files("tester/new") == {}


def test_a_token_that_is_not_valid_is_refused(client, hub):
    asked = len(hub.requests)
    kind, words = client(with_token, "hf_wrong", check_access, "tester/new-one")
    assert kind == "HubError"
    assert words.startswith("The Hub refuses the token: it is not valid")
    assert "hf auth login" in words
    assert [path for _, path in hub.requests[asked:]] == ["/api/whoami-v2"]


@pytest.mark.parametrize("name", ["somebody/new", "somebody/there-already"])
def test_somebody_elses_name_is_refused(client, hub, name):
    """Also one that exists, where making it `exist_ok` reports success to everybody."""
    hub.repositories["somebody/there-already"] = Repository("somebody/there-already", False)
    kind, words = client(error_of, open_repository, name)
    assert kind == "HubError"
    assert "name a repository of your own" in words
    assert "no right to write under somebody" in words


def test_a_branch_the_hub_does_not_take_is_told_in_its_words(client, folders):
    kind, words = client(error_of, push_staged, folders[0], "other", branch="a branch")
    assert kind == "HubError"
    assert words.startswith("The Hub refuses: ")
    assert "Invalid branch name: a branch" in words


def test_metadata_the_hub_does_not_know_is_told_in_its_words(client, hub, folders, tmp_path):
    kind, words = client(error_of, check_metadata, "no-such-licence", ["en"])
    assert (kind, words) == (
        "HubError",
        """The Hub refuses: "license" must be one of ['apache-2.0', 'mit']""",
    )
    assert client(check_metadata, "mit", ["en"]) is None
    assert client(check_metadata, None, None) is None
    (tmp_path / "README.md").write_text("---\nlicense: no-such-licence\n---\n")
    kind, words = client(error_of, push_staged, tmp_path, "faulty-card")
    assert kind == "HubError"
    assert "Invalid metadata in README.md" in words
    assert hub.files("tester/faulty-card") == {}


def test_a_hub_that_does_not_answer_is_told(client):
    kind, words = client(where_nobody_listens, check_access, "tester/new")
    assert kind == "HubError"
    assert words.startswith("The Hub at http://127.0.0.1:1 cannot be reached")
    assert "push it later" in words


@pytest.mark.slow
def test_the_script_checks_then_pushes_with_an_addressed_card(client, hub, folders, tmp_path):
    """Through the whole script: its folder holds a checkpoint and a log, which stay here."""
    folder = folders[0]
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "model.safetensors").write_text("not for others")
    (folder / "training_log.jsonl").write_text("{}")
    asked = len(hub.requests)
    assert client(run_script, "push_to_hub", [str(folder), "--repo_id", "tester/by-script"]) is None
    files = hub.files("tester/by-script")
    assert set(files) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert client(loaded, "auto", "tester/by-script")[0] == logits_of(tiny_model(seed=1))
    card = files["README.md"].decode()
    assert card.count('"tester/by-script"') == card.count("model=") + card.count("_pretrained(")
    assert "a-folder" not in card
    assert "# by-script\n" in card
    commits = [path for _, path in hub.requests[asked:] if "/commit/" in path]
    assert commits == ["/api/models/tester/by-script/commit/main"]


@pytest.mark.slow
def test_a_model_with_its_code_loads_by_revision_where_the_package_is_missing(
    client, hub, folders, tmp_path
):
    name = "tester/with-code"
    first = client(push_with_code, folders[0], name)
    words = [str(folders[1]), "--repo_id", name, "--with_code"]
    assert client(run_script, "push_to_hub", words) is None
    commits = [first, hub.repositories[name].branches["main"]]
    assert "modeling_maskgit.py" in hub.files(name)
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, name, TEXT, *commits],
        env={**os.environ, **hub.environment(tmp_path), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    assert json.loads(last) == [logits_of(tiny_model(seed=seed)) for seed in (1, 2)]
    assert [line.split()[0] for line in printed] == ["w1", "w1", "w1"]


@pytest.mark.slow
def test_training_pushes_at_its_end(client, hub, tmp_path):
    words = [
        *write_inputs(tmp_path),
        *("--output_dir", str(tmp_path / "run"), "--validation_fraction", "0.1", "--use_cpu"),
        *("--max_steps", "2", "--push_to_hub", "--hub_private_repo", "--license", "mit"),
    ]
    assert client(run_script, "train", words) is None
    assert hub.repositories["tester/run"].private
    assert "training_options.yaml" not in hub.files("tester/run")
    model = MaskGitForMaskedLM.from_pretrained(tmp_path / "run")
    assert client(loaded, "auto", "tester/run")[0] == logits_of(model)
    text, data = client(card_of, "tester/run")
    assert 'from_pretrained("tester/run")' in text
    assert str(tmp_path) not in text
    assert data["license"] == "mit"
    (nelbo, error) = data["model-index"][0]["results"][0]["metrics"]
    assert (nelbo["type"], error["type"]) == ("nelbo", "nelbo_std_error")


@pytest.mark.slow
def test_training_that_could_not_push_does_not_begin(client, tmp_path):
    words = [
        *write_inputs(tmp_path),
        *("--output_dir", str(tmp_path / "run"), "--use_cpu", "--max_steps", "1"),
        *("--push_to_hub", "--hub_model_id", "somebody/model"),
    ]
    kind, words = client(run_script, "train", words)
    assert kind == "HubError"
    assert "name a repository of your own" in words
    assert not (tmp_path / "run").exists()
