"""What is shown of a text is that text and nothing else."""

import pytest

from hf_maskgit.hub.card import GeneratorCard, render_model_card
from hf_maskgit.hub.visible import plain, visible

ESCAPE = "\N{SYMBOL FOR ESCAPE}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain <b>\ttext\n日本 🙂 e\u0301 \u200d", "plain <b>\ttext\n日本 🙂 e\u0301 \u200d"),
        ("\x1b[31m", f"{ESCAPE}[31m"),
        ("\x00\x7f\x9b\r", "\u2400\u2421\ufffd\u240d"),
        ("a\u202eb\u2066c\ud800", "a\ufffdb\ufffdc\ufffd"),
    ],
)
def test_control_characters_become_signs(text, shown):
    assert visible(text) == shown


def test_a_plain_text_is_one_line_without_markup():
    assert plain("<img src=x>\na & b\x1b") == f"&lt;img src=x&gt; a &amp; b{ESCAPE}"


def test_a_card_holds_no_markup_of_names_settings_and_samples():
    bad = "<script>x</script>\x1b"
    card = GeneratorCard(
        model_id="me/verses",
        title=f"Title {bad}",
        encoder="`bert`",
        training_data="Verses.",
        masked_example="a [MASK]",
        prompt_example="a",
        training={f"setting {bad}": f"value {bad} | b\nc"},
        samples=[f"sample {bad}\n```\nmore"],
        sampling="Drawn.",
    )
    text = render_model_card(card).text
    safe = f"&lt;script&gt;x&lt;/script&gt;{ESCAPE}"
    assert f"# Title {safe}" in text
    assert rf"| setting {safe} | value {safe} \| b c |" in text
    assert f"````text\nsample <script>x</script>{ESCAPE}\n```\nmore\n````" in text
    assert "\x1b" not in text
