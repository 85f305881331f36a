"""/v1/infill: texts with masks and blanks, filled as the infilling pipeline fills them."""

from collections.abc import Sequence
from typing import Any

from ..core.decoding_state import DecodingState
from ..core.pipeline_infilling import InfillingPipeline
from .fields import check_texts_asked, flag, seed_of, texts_of
from .reader import Reader
from .tasks import Emit, Json, Reading, Task, head

# Words of the pipeline's own.
_PIPELINE = ("blank_lengths", "length", "length_samples", "patterns", "choices", "num_distinct")


class Infilling(Reader):
    """Reads requests for texts to fill."""

    own = ("text", "stream", *_PIPELINE)
    pipeline = InfillingPipeline

    def read(self, fields: Json) -> Reading:
        """Understand a request, with every check that needs no pass."""
        stream = flag(fields, "stream")
        texts = texts_of("text", fields.pop("text", None))
        seed = seed_of(fields)
        options, resolved = self._options(fields)
        check_texts_asked(len(texts) * resolved.num_return_sequences, self._limits)
        if resolved.stop_strings is not None:
            options["tokenizer"] = self._tokenizer
        before, within, after = self._pipeline._sanitize_parameters(
            **options, seed=seed, return_probabilities=True
        )
        tasks = [self._task(text, before, within, after, stream) for text in texts]
        words = _Words(head("infill", "infill", self._name), seed)
        return Reading(tasks, words.answer, stream, words.tell, words.close, words.finish, texts)

    def _task(self, text: str, before: Json, within: Json, after: Json, stream: bool) -> Task:
        item = self._pipeline.preprocess(text, **before)

        def work(emit: Emit) -> Any:
            own = dict(within)
            if stream and item["choices"] is None:
                own["callback_on_step_end"] = lambda step, state: emit(self._draft(step, state))
            return self._pipeline.postprocess(self._pipeline._forward(item, **own), **after)

        return Task(work, max(sum(len(drafts) for drafts in item["drafts"]), 1))

    def _draft(self, step: int, state: DecodingState) -> Json:
        """Say what the rows are after a pass, masks and all."""
        tokenizer = self._tokenizer
        hidden = set(tokenizer.all_special_ids) - {tokenizer.mask_token_id}
        rows = [[i for i in row if i not in hidden] for row in state.text.tolist()]
        return {"step": step, "texts": tokenizer.batch_decode(rows), "token_ids": rows}


class _Words:
    """How the texts of one request are told."""

    def __init__(self, head: Json, seed: int) -> None:
        self._head, self._seed = head, seed

    def answer(self, results: Sequence[Any]) -> Json:
        data = [self._data(index, result) for index, result in enumerate(results)]
        return {**self._head, "data": data, "seed": self._seed}

    def tell(self, task: int, draft: Json) -> list[Json]:
        return [{**self._head, "object": "infill.draft", "index": task, **draft}]

    def close(self, task: int, result: Any) -> list[Json]:
        return [{**self._head, "data": [self._data(task, result)], "seed": self._seed}]

    def finish(self, results: Sequence[Any]) -> list[Json]:
        return []

    def _data(self, index: int, result: Any) -> Json:
        return {"index": index, "results": result if isinstance(result, list) else [result]}
