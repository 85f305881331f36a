"""Tokenizers as hypothesis draws them: roles shared or absent, gaps, reserved tokens, templates."""

from dataclasses import dataclass, field

from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

ROLES = ("pad", "unk", "cls", "sep", "bos", "eos")


@dataclass(frozen=True)
class Table:
    """What a tokenizer is made of.

    Attributes:
        ids: id of every token by its text, gaps and all.
        roles: the token that plays each role; a role may be absent, and a token may play several.
            "mask" is always there.
        reserved: tokens that only the backend's table marks special.
        template: what stands around a text and around two, in the words of the backend.
    """

    ids: dict[str, int]
    roles: dict[str, str]
    reserved: list[str] = field(default_factory=list)
    template: tuple[str, str] | None = None

    @property
    def size(self) -> int:
        """The greatest id and one more."""
        return max(self.ids.values()) + 1

    @property
    def words(self) -> list[str]:
        """Tokens that are nothing but words."""
        framing = set(" ".join(self.template or ()).split())
        others = {*self.roles.values(), *self.reserved, *framing}
        return [token for token in self.ids if token not in others]

    def build(self) -> PreTrainedTokenizerFast:
        """Make the tokenizer."""
        backend = Tokenizer(models.WordLevel(self.ids, unk_token=self.roles.get("unk", "none")))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        backend.add_special_tokens(self.reserved)
        if self.template is not None:
            single, pair = self.template
            framing = sorted(set((single + " " + pair).split()) & self.ids.keys())
            backend.post_processor = processors.TemplateProcessing(
                single=single, pair=pair, special_tokens=[(t, self.ids[t]) for t in framing]
            )
        names = {f"{role}_token": token for role, token in self.roles.items()}
        return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Draw a table of 3 to 6 words, up to 3 reserved tokens, and up to 6 roles on 6 tokens."""
    words = [f"w{i}" for i in range(draw(st.integers(3, 6)))]
    reserved = [f"<reserved_{i}>" for i in range(draw(st.integers(0, 3)))]
    played = draw(st.lists(st.sampled_from(ROLES), unique=True))
    # A token by its number, so that two roles often have the same one.
    roles = {role: f"<{draw(st.integers(0, len(ROLES) - 1))}>" for role in played}
    roles["mask"] = "<mask>"
    tokens = [*words, *reserved, *dict.fromkeys(roles.values())]
    before, behind = draw(st.sampled_from(["", "{cls} ", "{bos} ", "{frame} "])), ""
    behind = draw(st.sampled_from(["", " {sep}", " {eos}", " {eos} {sep}", " {frame}"]))
    names = {"frame": "<frame>", **{role: roles.get(role, "<frame>") for role in ROLES}}
    template = None
    if before or behind:
        before, behind = before.format(**names), behind.format(**names)
        template = (f"{before}$A{behind}", f"{before}$A{behind} $B{behind}")
        if "<frame>" in before + behind:  # a token that no role names
            tokens.append("<frame>")
    # Distinct ids in any order, with gaps between them.
    space = len(tokens) + draw(st.integers(0, 5))
    ids = draw(st.permutations(range(space)))[: len(tokens)]
    return Table(dict(zip(tokens, ids, strict=True)), roles, reserved, template)
