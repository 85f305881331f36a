"""Real models and tokenizers at tiny size, built on the spot: nothing is downloaded or stored.

Weights are drawn wide, so that logits differ by whole nats from place to place and text to text: a
fault that mixes up positions, rows or padding cannot hide in rounding. `TableModel` is no network:
its logits are known to the last bit.
"""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModelForMaskedLM,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    EsmConfig,
    EsmTokenizer,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM, MaskGitGenerationConfig
from hf_maskgit.core.generation_maskgit import MaskGitGenerationMixin
from hf_maskgit.core.special_tokens import tokenizer_fields

BERT_SPECIALS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
# RoBERTa's order: its padding id is 1, and positions are counted from there.
ROBERTA_SPECIALS = {
    "cls": "<s>",
    "pad": "<pad>",
    "sep": "</s>",
    "unk": "<unk>",
    "mask": "<mask>",
    "bos": "<s>",
    "eos": "</s>",
}
WORDS = [f"w{i}" for i in range(35)]
AMINO_ACIDS = list("LAGVSERTIDPKQNFYMHWCXBUZO")
WIDE = 0.3  # standard deviation of fresh weights; transformers' own is 0.02
_BODY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "initializer_range": WIDE,
}


def word_tokenizer(
    specials: dict[str, str] = BERT_SPECIALS, words: list[str] = WORDS
) -> PreTrainedTokenizerFast:
    """One id per word, special tokens first, and the classic frame around a text."""
    names = list(dict.fromkeys(specials.values()))
    vocabulary = {token: i for i, token in enumerate([*names, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=specials["unk"]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    first, last = specials["cls"], specials["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{role}_token": token for role, token in specials.items()},
    )


def roberta_tokenizer() -> PreTrainedTokenizerFast:
    """Like `word_tokenizer`, with RoBERTa's special tokens and no token types."""
    tokenizer = word_tokenizer(ROBERTA_SPECIALS)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def protein_tokenizer() -> EsmTokenizer:
    """ESM's own tokenizer over its own alphabet: one residue is one token."""
    alphabet = ["<cls>", "<pad>", "<eos>", "<unk>", *AMINO_ACIDS, ".", "-", "<null_1>", "<mask>"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.txt")
        path.write_text("\n".join(alphabet))
        return EsmTokenizer(str(path))


def bert_config(**changes: Any) -> BertConfig:
    return BertConfig(**{"vocab_size": 40, "max_position_embeddings": 64, **_BODY, **changes})


def _roberta() -> RobertaConfig:
    return RobertaConfig(
        vocab_size=40,
        max_position_embeddings=64 + 2,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **_BODY,
    )


def _distilbert() -> DistilBertConfig:
    return DistilBertConfig(
        vocab_size=40,
        max_position_embeddings=64,
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=48,
        initializer_range=WIDE,
    )


def _albert() -> AlbertConfig:
    return AlbertConfig(vocab_size=40, max_position_embeddings=64, embedding_size=16, **_BODY)


def _electra() -> ElectraConfig:
    return ElectraConfig(vocab_size=40, max_position_embeddings=64, embedding_size=16, **_BODY)


def _modernbert() -> ModernBertConfig:
    return ModernBertConfig(
        vocab_size=40,
        max_position_embeddings=64,
        pad_token_id=0,
        cls_token_id=2,
        bos_token_id=2,
        sep_token_id=3,
        eos_token_id=3,
        local_attention=8,
        global_attn_every_n_layers=2,
        **_BODY,
    )


def _esm(**changes: Any) -> EsmConfig:
    sizes = {"vocab_size": 33, "max_position_embeddings": 64, "position_embedding_type": "rotary"}
    ids = {"mask_token_id": 32, "pad_token_id": 1}
    return EsmConfig(**{**sizes, **ids, "token_dropout": False, **_BODY, **changes})


ENCODERS = {
    "bert": bert_config,
    "roberta": _roberta,
    "distilbert": _distilbert,
    "albert": _albert,
    "electra": _electra,
    "modernbert": _modernbert,
    "esm": _esm,
}


def encoder_config(kind: str, **changes: Any) -> PreTrainedConfig:
    """The encoder's configuration with some settings changed and every dropout off."""
    config = ENCODERS[kind]()
    for name in list(vars(config)):
        if "dropout" in name and type(getattr(config, name)) is float:
            setattr(config, name, 0.0)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def tokenizer_for(kind: str) -> PreTrainedTokenizerBase:
    return {"roberta": roberta_tokenizer, "esm": protein_tokenizer}.get(kind, word_tokenizer)()


def tiny_encoder(kind: str = "bert", **changes: Any) -> PreTrainedModel:
    """A plain masked-LM model of transformers, as one would download it."""
    model = AutoModelForMaskedLM.from_config(encoder_config(kind, **changes))
    randomise_vectors(model)
    return model.eval()


def tiny_config(kind: str = "bert", **options: Any) -> MaskGitConfig:
    fields = tokenizer_fields(tokenizer_for(kind))
    return MaskGitConfig(**{"text_config": encoder_config(kind), **fields, **options})


def tiny_model(kind: str = "bert", seed: int = 0, **options: Any) -> MaskGitForMaskedLM:
    """A generator with random weights that depend on `seed` alone, in evaluation mode.

    Args:
        kind: one of `ENCODERS`.
        seed: of the weights.
        **options: fields of `MaskGitConfig`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskGitForMaskedLM(tiny_config(kind, **options))
        randomise_vectors(model.denoiser)
    return model.eval()


def randomise_vectors(model: PreTrainedModel) -> None:
    """Move biases and norms off 0 and 1, so that one that is lost on the way is missed.

    Matrices that start at 0, the last of a residual branch for example, are drawn likewise.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter.add_(torch.randn_like(parameter) * WIDE)


class TableModel(MaskGitGenerationMixin):
    """A denoiser that is three tables: logits follow from the place and the two neighbours.

    Its critic is four: the same three, and the token itself. Both remember what they were asked.

    In float64 and without a sum over the row, so that a row's logits are the same to the last bit
    whatever stands beside it in the batch. Padding reads as the end of the row.

    Args:
        config: whose vocabulary and special ids it has.
        max_positions: longest row it takes.
        critic: whether it has one.
    """

    def __init__(
        self, config: MaskGitConfig, max_positions: int = 64, critic: bool = False
    ) -> None:
        size = config.get_text_config().vocab_size
        generator = torch.Generator().manual_seed(7)

        def table(num_rows: int) -> Tensor:
            return 2 * torch.randn(num_rows, size, generator=generator, dtype=torch.float64)

        self.config = config
        self.device = torch.device("cpu")
        self.generation_config = MaskGitGenerationConfig.from_model_config(config)
        self._max_positions = max_positions
        self.of_place, self.of_left, self.of_right = (
            table(n) for n in (max_positions, size + 1, size + 1)
        )
        self.of_type = table(2)
        self.critic_tables = [table(n)[:, 0] for n in (max_positions, size, size + 1, size + 1)]
        self.calls: list[SimpleNamespace] = []
        self.critic_calls: list[SimpleNamespace] = []
        self._has_critic = critic

    @property
    def has_token_critic(self) -> bool:
        return self._has_critic

    @property
    def max_positions(self) -> int:
        return self._max_positions

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        masked_positions: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> SimpleNamespace:
        self.calls.append(
            SimpleNamespace(
                input_ids=input_ids.clone(),
                attention_mask=attention_mask.clone(),
                masked_positions=masked_positions.clone(),
                token_type_ids=None if token_type_ids is None else token_type_ids.clone(),
            )
        )
        text, left, right = self._neighbours(input_ids, attention_mask)
        logits = self.of_place[: text.shape[1]] + self.of_left[left] + self.of_right[right]
        if token_type_ids is not None:
            logits = logits + self.of_type[token_type_ids]
        return SimpleNamespace(logits=logits[masked_positions])

    def score_tokens(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        positions: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        self.critic_calls.append(
            SimpleNamespace(input_ids=input_ids.clone(), positions=positions.clone())
        )
        text, left, right = self._neighbours(input_ids, attention_mask)
        of_place, of_token, of_left, of_right = self.critic_tables
        scores = of_place[: text.shape[1]] + of_left[left] + of_right[right] + of_token[input_ids]
        if token_type_ids is not None:
            scores = scores + self.of_type[token_type_ids, 0]
        return scores[positions]

    def _neighbours(
        self, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        nobody = len(self.of_left) - 1
        text = input_ids.masked_fill(attention_mask == 0, nobody)
        left = F.pad(text, (1, 0), value=nobody)[:, :-1]
        return text, left, F.pad(text, (0, 1), value=nobody)[:, 1:]
