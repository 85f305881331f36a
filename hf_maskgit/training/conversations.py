"""Conversations: what the assistant said is learned, all else is given and never masked."""

import re
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

# How a template marks what the assistant writes, with or without trimmed blanks.
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


class ConversationReader:
    """Renders conversations by a tokenizer's chat template, and finds the assistant's turns.

    Where the template marks them itself ({% generation %}), those marks count. Elsewhere a turn is
    what the template adds to the conversation before it, asked for an answer, by the turn itself.

    Args:
        tokenizer: one with a chat template that knows where its tokens stand in a text.

    Raises:
        ValueError: for one without template, or one that cannot say where its tokens stand.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.chat_template is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has no chat template, by which `messages_column` is "
                "read. Set tokenizer.chat_template and save the tokenizer, or give the data as "
                "`prompt_column` and `completion_column`."
            )
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} does not say where its tokens stand in a text, so the "
                "assistant's cannot be told from the others. Use a fast tokenizer."
            )
        self.tokenizer = tokenizer
        self._marks = bool(_GENERATION.search(tokenizer.get_chat_template()))

    def read(self, conversation: Any) -> tuple[str, Any, list[int]]:
        """Render and tokenise one conversation.

        Args:
            conversation: a list of {"role": ..., "content": ...}.

        Returns:
            The text, what the tokenizer made of it (one row), and for each token whether it is the
            assistant's.

        Raises:
            ValueError: whose message is the end of a sentence, for what is no conversation, has no
                turn of an assistant, or does not go through the template turn by turn.
        """
        is_one = isinstance(conversation, list) and all(
            isinstance(turn, dict) and isinstance(turn.get("content"), str) and "role" in turn
            for turn in conversation
        )
        if not is_one or not conversation:
            raise ValueError(
                'is none: a list of {"role": "user" or "assistant", "content": "..."} is needed.'
            )
        if not any(turn["role"] == "assistant" for turn in conversation):
            raise ValueError("has no turn of the role 'assistant', so nothing can be learned.")
        turns = [{name: turn[name] for name in ("role", "content")} for turn in conversation]
        text = self._render(turns)
        encoded = self.tokenizer(
            [text], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        spans = self._marked(turns) if self._marks else self._spans(turns, text)
        maskable = [
            int(any(first <= start < end <= last for first, last in spans))
            for start, end in encoded["offset_mapping"][0]
        ]
        return text, encoded, maskable

    def _marked(self, turns: list[dict[str, str]]) -> list[tuple[int, int]]:
        """Ask the template where the assistant's turns begin and end."""
        # Its mask of tokens runs on to the end of the text behind a turn that ends with a space
        # (transformers 5.23); so only the characters are asked for.
        special: Any = self.tokenizer.special_tokens_map
        found: Any = render_jinja_template(
            [turns],
            chat_template=self.tokenizer.get_chat_template(),
            return_assistant_tokens_mask=True,
            **special,
        )
        return [(int(first), int(last)) for first, last in found[1][0]]

    def _spans(self, turns: list[dict[str, str]], text: str) -> list[tuple[int, int]]:
        """Find where in a text the assistant's turns begin and end."""
        spans = []
        for number, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            before = self._render(turns[:number], add_generation_prompt=True) if number else ""
            whole = self._render(turns[: number + 1])
            if not (text.startswith(whole) and whole.startswith(before)):
                raise ValueError(
                    "cannot be split into turns: the chat template writes a turn otherwise when "
                    "another one follows. Use a template that marks the assistant's turns with "
                    "{% generation %} ... {% endgeneration %}."
                )
            spans.append((len(before), len(whole)))
        return spans

    def _render(self, turns: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
        try:
            rendered: Any = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # whatever a template raises, it is about this conversation
            raise ValueError(f"does not go through the chat template ({error}).") from error
        return str(rendered)
