"""Token streams written as text, markers and all."""

import re

from haast.harmony import Tokenizer


def spell(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of `text`, in which markers stand for special tokens: what a model generates."""
    ids = {literal: token_id for token_id, literal in tokenizer.special_text.items()}
    return [
        token_id
        for piece in re.split(r"(<\|\w+\|>)", text)
        for token_id in ([ids[piece]] if piece in ids else tokenizer.encode(piece))
    ]
