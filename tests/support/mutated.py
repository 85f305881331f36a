"""Files of a checkpoint and recipes, damaged with a seed: each is read, or refused by us."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_maskgit.hub.loading import load_generator
from hf_maskgit.training.recipes import load_recipe
from tests.support.tiny import tiny_model, word_tokenizer

_JSON = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")
_VALUES: list[Any] = [
    *(None, True, 0, -1, 3, 10**12, 0.5, float("nan"), "", "x", "3", [], [1], ["a"], {}, {"a": 1}),
]
_RECIPE = "learning_rate: 1e-4\nmax_steps: 5\noutput_dir: run\nlanguage: [en, de]\npack: true\n"


class Mutations:
    """Draws damaged copies of one small generator, and of a recipe."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.model, self.tokenizer = tiny_model(), word_tokenizer()

    def draw(self, folder: Path) -> tuple[str, Callable[[], Any]]:
        """Write a damaged copy into an empty folder; return what was done, and who reads it."""
        if self.random.random() < 0.2:
            path = folder / "recipe.yaml"
            path.write_text(_RECIPE)
            done = self._bytes(path)
            return f"recipe: {done}", lambda: load_recipe(path)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        name = self.random.choice([*_JSON, *_JSON, "model.safetensors"])
        of_values = name.endswith(".json") and self.random.random() < 0.7
        done = self._value(folder / name) if of_values else self._bytes(folder / name)
        return f"{name}: {done}", lambda: self._use(folder)

    def _use(self, folder: Path) -> None:
        """Load and use it: what cannot be used should not have been loaded."""
        model, tokenizer = load_generator(folder)
        inputs = tokenizer(["w1 [MASK] w2"], return_tensors="pt")
        model.generate(inputs["input_ids"], inputs.get("attention_mask"), seed=0)

    def _bytes(self, path: Path) -> str:
        """Cut off, empty, change or add bytes."""
        old = path.read_bytes()
        place = self.random.randrange(min(len(old), 4000))
        ways: dict[str, bytes] = {
            "cut off": old[:place],
            "empty": b"",
            "a byte": old[:place] + bytes([self.random.randrange(256)]) + old[place + 1 :],
            "a byte more": old[:place] + bytes([self.random.randrange(256)]) + old[place:],
            "a byte less": old[:place] + old[place + 1 :],
            "a mark": b"\xef\xbb\xbf" + old,
            "twice": old + old,
            "another encoding": old.decode("latin-1").encode("utf-16"),
            "zeros": bytes(len(old)),
        }
        way = self.random.choice(list(ways))
        path.write_bytes(ways[way])
        return f"{way} at {place}"

    def _value(self, path: Path) -> str:
        """Put something else in the place of a value, take a name away, or add one."""
        values = json.loads(path.read_text(encoding="utf-8"))
        inner = values
        while True:
            name = self.random.choice(list(inner))
            if not isinstance(inner[name], dict) or not inner[name] or self.random.random() < 0.3:
                break
            inner = inner[name]
        way = self.random.choice(["set", "set", "set", "remove", "add"])
        value = self.random.choice(_VALUES)
        if way == "set":
            inner[name] = value
        elif way == "remove":
            del inner[name]
        else:
            inner["steqs"] = value
        path.write_text(json.dumps(values), encoding="utf-8")
        return f"{way} {name} {value!r}"
