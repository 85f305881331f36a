"""The model card: what is known about a model as data, rendered by one template.

    card = GeneratorCard(model_id="me/verses", encoder="all-MiniLM-L6-v2", ...)
    write_model_card("runs/verses", card)        # runs/verses/README.md, which the Hub shows

The template lies beside this module, so that an installed package has it.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedTokenizerBase

from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..core.special_tokens import special_ids
from ..evaluation.bound import NelboOutput
from ..evaluation.texts import length_asked_for
from ..training.versions import installed_versions
from .loading import short_name
from .visible import plain, visible

_PACKAGE = __package__.partition(".")[0]
CARD_NAME = "README.md"  # the Hub shows the file of this name as the card
_TEMPLATE_NAME = "model_card_template.md"
# The Hub lists a model under one task and knows none for infilling. Writing text is what people
# look for here; the encoder's own task, which this model still does, goes among the tags.
_TASK = "text-generation"
_TAGS = ("masked-diffusion", "maskgit", "infilling", "fill-mask")
_IMPORT = (
    "# The Python package hf_maskgit has to be installed; it brings torch and transformers.\n"
    "import hf_maskgit  # makes this kind of model known to transformers\n"
)
_EXAMPLE_LENGTH = 16  # tokens, about a dozen words: a weak model's text gets no better with more
_TRUST = ", trust_remote_code=True"
_LITERAL = r'"(?:[^"\\\n]|\\.)*"'  # a text in double quotes, as Python and JSON write it


@dataclass(frozen=True, kw_only=True)
class GeneratorCard:
    """What a card says about one model. Sentences are Markdown.

    Attributes:
        model_id: what `from_pretrained` takes to load the model: its name on the Hub, or a folder.
        title: headline and name among results; None takes the last part of `model_id`.
        encoder: the encoder it was made from, as it goes into "It is ..., trained as".
        training_data: what it learned from, in sentences.
        masked_example: a text of the model's kind with at least one mask token.
        prompt_example: the beginning of such a text.
        license: the Hub's identifier of the weights' licence, such as "apache-2.0"; None when those
            who trained them named none. Nobody else can.
        license_note: sentences about the licences of weights, encoder and data.
        num_parameters: of the model, tied weights counted once.
        unknown_share: of the words it learned from, the share that the tokenizer does not know.
        training: settings of the training by name, as they go into a table.
        held_out_data: name of the data the bound was estimated on.
        held_out_dataset: its name on the Hub, where it has one.
        held_out_unknown_share: as `unknown_share`, of its words.
        bound: estimate of the bound on held-out texts; None when there was no evaluation.
        bound_before: the same before training.
        best: the lowest bound in between, where it is lower: that line of the run's log, with
            `step`, `eval_nats_per_token` and `eval_std_error`.
        critic_auroc: how often its token critic scores a right token above a wrong one of the same
            text, among those that the model filled in; None where none was measured.
        curves: name of a picture of the training beside the card.
        unigram_nats: cross-entropy of a unigram model of the training texts on the same tokens, in
            nats per token.
        samples: texts the model wrote.
        sampling: how they were drawn, in a sentence.
        limits: what else a user must know, one sentence each.
        base_model: the encoder's name on the Hub, where it has one.
        datasets: names on the Hub of the data sets.
        language: ISO 639 codes of the texts' languages.
        tags: further tags.
        versions: of the software, by name.

    Raises:
        ValueError: for a bound that is no finite number, or samples without a word on how they were
            drawn.
    """

    model_id: str
    title: str | None = None
    encoder: str
    training_data: str
    masked_example: str
    prompt_example: str
    license: str | None = None
    license_note: str = "The licence of the weights is not stated."
    num_parameters: int | None = None
    unknown_share: float | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    held_out_data: str = "the held-out data"
    held_out_dataset: str | None = None
    held_out_unknown_share: float | None = None
    bound: NelboOutput | None = None
    bound_before: NelboOutput | None = None
    best: Mapping[str, Any] | None = None
    critic_auroc: float | None = None
    curves: str | None = None
    unigram_nats: float | None = None
    samples: Sequence[str] = ()
    sampling: str = ""
    limits: Sequence[str] = ()
    base_model: str | None = None
    datasets: Sequence[str] = ()
    language: Sequence[str] = ()
    tags: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=installed_versions)

    def __post_init__(self) -> None:
        """Refuse what would make a card that misleads."""
        for name in ("bound", "bound_before"):
            bound = getattr(self, name)
            if bound is not None and not math.isfinite(bound.nats_per_token):
                raise ValueError(
                    f"`{name}` is {bound.nats_per_token} nats per token, not a finite number; find "
                    "out what went wrong before writing a card about it."
                )
        if self.samples and not self.sampling:
            raise ValueError(
                "`samples` come without `sampling`: say how they were drawn (passes, schedule, "
                "order, temperature), without which they say little."
            )

    @property
    def name(self) -> str:
        """The title, or else the last part of `model_id`."""
        return self.title or short_name(self.model_id)


def render_model_card(card: GeneratorCard) -> ModelCard:
    """Render the card, metadata included."""
    template = resources.files(__package__).joinpath(_TEMPLATE_NAME).read_text(encoding="utf-8")
    return ModelCard.from_template(
        _metadata(card),
        template_str=template,
        import_line=_IMPORT.rstrip("\n"),
        card=card,
        name=plain(card.name),
        plain=plain,
        quote=_quote,
        cell=_cell,
        fenced=_fenced,
    )


def write_model_card(folder: str | Path, card: GeneratorCard) -> Path:
    """Write the card into a folder that holds a saved model; a card that stands there is replaced.

    Args:
        folder: exists.
        card: what to say.

    Returns:
        The path of the card.

    Raises:
        FileNotFoundError: when there is no such folder.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(folder)!r} to put a model card into; save the model there "
            "first."
        )
    path = Path(folder) / CARD_NAME
    render_model_card(card).save(path)
    return path


def card_from_config(
    model: MaskGitForMaskedLM, tokenizer: PreTrainedTokenizerBase, model_id: str
) -> GeneratorCard:
    """Say what can be known of a generator whose training left no card."""
    kind = model.config.get_text_config().model_type
    masked, prompt = own_examples(model, tokenizer)
    return GeneratorCard(
        model_id=model_id,
        encoder=f"an encoder of the type `{kind}`",
        num_parameters=model.num_parameters(),
        training_data="It is not recorded what the model learned from.",
        masked_example=masked,
        prompt_example=prompt,
    )


def own_examples(
    model: MaskGitForMaskedLM, tokenizer: PreTrainedTokenizerBase, seed: int = 0
) -> tuple[str, str]:
    """Let the model write the examples of its card, so that none is taken from the data.

    Returns:
        The first tokens, 16 at most, of a text the model wrote from nothing: with the middle one
        masked, and their first half.
    """
    one: dict[str, Any] = {"num_return_sequences": 1, "return_dict_in_generate": False}
    asked = length_asked_for(model)
    sequences: Any = model.generate(seed=seed, tokenizer=tokenizer, **asked, **one)
    (written,) = sequences.tolist()
    special = special_ids(vars(model.config))
    words = [i for i in written if i not in special]
    text = words[:_EXAMPLE_LENGTH] or [tokenizer.mask_token_id]
    middle = len(text) // 2
    masked = [*text[:middle], tokenizer.mask_token_id, *text[middle + 1 :]]
    to_fill, prompt = tokenizer.batch_decode([masked, text[: max(1, middle)]])
    return to_fill, prompt


def own_samples(
    model: MaskGitForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    lengths: Sequence[int],
    seed: int = 0,
) -> list[str]:
    """Let the model write texts of given lengths from masks alone.

    Args:
        model: writes, with the options of decoding stored with it.
        tokenizer: its own.
        lengths: of each text in tokens, framing included.
        seed: of the draws.
    """
    prefix, suffix = model.config.prefix_ids or [], model.config.suffix_ids or []
    rows = []
    for length in lengths:
        masks = [tokenizer.mask_token_id] * (length - len(prefix) - len(suffix))
        rows.append([*prefix, *masks, *suffix])
    # One batch of all lengths: what a row becomes does not depend on its neighbours.
    padded = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    one: dict[str, Any] = {"num_return_sequences": 1, "return_dict_in_generate": False}
    written: Any = model.generate(padded["input_ids"], padded["attention_mask"], seed=seed, **one)
    return tokenizer.batch_decode(written, skip_special_tokens=True)


def address_card(
    card: ModelCard, model_id: str, *, revision: str | None = None, with_code: bool = False
) -> ModelCard:
    """Let a card speak of the place where its model is from now on.

    The Python in it loads the model from there, and where title and results bore the last part of
    the old address as their name, they bear that of the new one. All else stays, so what people
    wrote into the card is kept. A card without such Python is left alone.

    Args:
        card: from `render_model_card` or a file; changed in place.
        model_id: what `from_pretrained` takes there.
        revision: branch, tag or commit to name beside it; None names none.
        with_code: whether the model carries its code: then nothing of this package is imported,
            and the reader is shown how to trust that code.

    Returns:
        The same card.
    """
    found = re.search(rf"from_pretrained\(({_LITERAL})", card.text)
    if found is None:
        return card
    old = found[1]
    address = _quote(model_id)
    if revision is not None:
        address += f", revision={_quote(revision)}"
    if with_code:
        address += _TRUST
    addressed = re.compile(rf"{re.escape(old)}(, revision={_LITERAL})?({_TRUST})?")

    def readdress(block: re.Match[str]) -> str:
        code = addressed.sub(lambda _: address, block[2])
        for line in _IMPORT.splitlines(keepends=True):
            code = code.replace(line, "")
        return block[1] + ("" if with_code else _IMPORT) + code

    block = re.compile(r"(^```python\n)(.*?^```$)", flags=re.DOTALL | re.MULTILINE)
    text = block.sub(readdress, card.text)
    old_name, name = map(short_name, (json.loads(old), model_id))
    title = re.compile(rf"^# {re.escape(old_name)}$", flags=re.MULTILINE)
    card.text = title.sub(lambda _: f"# {name}", text, count=1)
    data: Any = card.data
    if data.eval_results is not None and data.model_name == old_name:
        data.model_name = name
    return card


def _metadata(card: GeneratorCard) -> ModelCardData:
    """Return what the Hub reads: how to find, list and compare the model."""
    bound, results = card.bound, None
    if bound is not None:
        kind = "nats per token of an upper bound on the negative log-likelihood"
        metrics = [
            ("nelbo", kind, bound.nats_per_token),
            ("nelbo_std_error", f"standard error of the {kind}", bound.nats_per_token_std_error),
        ]
        results = [
            EvalResult(
                task_type=_TASK,
                dataset_type=card.held_out_dataset or "other",
                dataset_name=card.held_out_data,
                metric_type=metric,
                metric_name=name,
                metric_value=round(value, 4),
            )
            for metric, name, value in metrics
        ]
    return ModelCardData(
        base_model=card.base_model,
        datasets=list(card.datasets) or None,
        language=list(card.language) or None,
        license=card.license,
        library_name=_PACKAGE,
        pipeline_tag=_TASK,
        tags=[*_TAGS, *card.tags],
        model_name=card.name if results else None,
        eval_results=results,
    )


def _quote(text: str) -> str:
    """Write a text as a literal of Python; JSON's string literals are such."""
    return json.dumps(text, ensure_ascii=False)


def _cell(value: Any) -> str:
    """Keep a value within one cell of a Markdown table."""
    return plain(str(value)).replace("|", r"\|")


def _fenced(text: str) -> str:
    """Show a text as it is, behind a fence longer than any run of backticks in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible(text)}\n{fence}"
