"""Words of a prompt in any script: letters with their marks, single symbols, whole emoji."""

from __future__ import annotations

import re
import unicodedata

ASCII_WORD = re.compile(r"[^\W_]+")
# zero width: they hold letters of one word, or emoji of one picture, together
JOINERS = "\u200c\u200d"
STYLES = range(0xFE00, 0xFE10)  # how a sign is drawn, which is no other sign
SKIN = range(0x1F3FB, 0x1F400)
TAGS = range(0xE0020, 0xE0080)
FLAGS = range(0x1F1E6, 0x1F200)
# scripts that are written without spaces: each sign, with its marks, counts as a word
UNSPACED = (
    *(range(0x0E00, 0x0F00), range(0x1000, 0x10A0), range(0x1780, 0x1800), range(0x1950, 0x19E0)),
    *(range(0x1A20, 0x1AB0), range(0x2E80, 0x2FE0), range(0x3005, 0x3030), range(0x3031, 0x3130)),
    *(range(0x31A0, 0x3200), range(0x3400, 0x4DC0), range(0x4E00, 0xA4D0), range(0xA9E0, 0xAA80)),
    *(
        range(0xAA80, 0xAAE0),
        range(0xF900, 0xFB00),
        range(0x1B000, 0x1B300),
        range(0x20000, 0x40000),
    ),
)
LETTER, SIGN, SYMBOL, MARK, JOIN, NOTHING, BREAK = range(7)


def words_of(prompt: str) -> list[str]:
    """Lower-cased words and numbers, split on whatever is neither letter, mark, digit nor symbol.

    Of ASCII, symbols split too: their words are those that stored embeddings were made from.
    """
    text = unicodedata.normalize("NFKC", prompt).lower()
    if text.isascii():
        return ASCII_WORD.findall(text)
    words: list[str] = []
    last = BREAK  # the kind of what the last word ends in
    for sign in text:
        kind = _kind(sign)
        if kind == NOTHING:
            continue
        if kind == BREAK or (kind in (MARK, JOIN) and last == BREAK):
            last = BREAK
        elif kind in (MARK, JOIN):
            words[-1] += sign
            last = JOIN if kind == JOIN else last
        elif (
            (kind == LETTER and last == LETTER) or (last == JOIN) or _ends_a_flag(words, sign, last)
        ):
            words[-1] += sign
            last = kind
        else:
            words.append(sign)
            last = kind
    return words


def _kind(sign: str) -> int:
    code = ord(sign)
    if code < 128:
        return LETTER if sign.isalnum() else BREAK
    if code in STYLES:
        return NOTHING
    if sign in JOINERS:
        return JOIN
    if code in TAGS or code in SKIN:
        return MARK
    category = unicodedata.category(sign)
    if category[0] == "M":
        return MARK
    if category[0] in "LN":
        return SIGN if any(code in script for script in UNSPACED) else LETTER
    if category == "Cf":
        return NOTHING
    # what is newer than Python's tables is most often an emoji
    return SYMBOL if category[0] == "S" or category in ("Cn", "Co") else BREAK


def _ends_a_flag(words: list[str], sign: str, last: int) -> bool:
    """True for the second letter of a flag."""
    return last == SYMBOL and ord(sign) in FLAGS and len(words[-1]) == 1 and ord(words[-1]) in FLAGS
