"""The plain letters behind a text: undoes other forms of letters, hidden characters, look-alikes and emoji."""

from __future__ import annotations

import re
import unicodedata

# Hidden characters: formats (soft hyphen, zero width, direction marks), and letters without a picture.
_HIDDEN = "Cf"
_BLANK_LETTERS = dict.fromkeys(map(ord, "\u115f\u1160\u3164\uffa0\u2800"), "\u200b")
_ACCENTS = frozenset({"Mn", "Me"})
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")
_FRACTIONS = {"½": ".5", "¼": ".25", "¾": ".75"}
_FRACTION = re.compile(rf"(?<=\d)[{''.join(_FRACTIONS)}]")
# Letters in dark circles and squares, and flag letters, which no normal form undoes.
_ENCLOSED = {
    first + place: letter
    for first in (0x1F150, 0x1F170, 0x1F1E6)
    for place, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
}
# Emoji of children and babies, in words.
_EMOJI = {
    **dict.fromkeys(map(ord, "\U0001f476\U0001f37c\U0001f47c\U0001f6bc"), " baby "),
    **dict.fromkeys(map(ord, "\U0001f9d2\U0001f6b8"), " child "),
    **dict.fromkeys(map(ord, "○◯"), "o"),
    ord("\U0001f466"): " boy ",
    ord("\U0001f467"): " girl ",
    ord("\U0001f46a"): " child ",
}
_SYMBOLS = {**_DASHES, **_ENCLOSED, **_EMOJI, **_BLANK_LETTERS}
# Latin letters that no normal form makes plain.
_LATIN = str.maketrans(
    "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢıɩɡɑøđłħŧƙɓɗɛɔ",
    "abcdefghijklmnoprstuvwyziigaodlhtkbdeo",
)
# Letters of other alphabets that look Latin. They count only in words that also hold Latin letters: other words belong
# to that other language.
_LOOK_ALIKES = str.maketrans(
    "асеорхуіїјѕһԁԛԝкмтвпгьАВСЕНІЈКМОРЅТХУαβεικνορτυχγ"
    "єӏүұѵңԍԌһԀҺҮςηωσδκΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"
    "օոսհցզյքեաԁ"
    "ᎠᎡᎢᎥᎪᎫᎬᎳᎻᎽᏀᏂᏃᏒᏔᏞᏟᏢᏴᏦᏙᏚᏩ",
    "aceopxyiijshdqwkmtbnrbABCEHIJKMOPSTXYabeikvoptuxy"
    "elyyvngGhdHYcnwodkABEZHIKMNOPTYX"
    "onuhgqjpewd"
    "drtiajewhyghzrwlcpbkvsw",
)
# Such letters that no word of Russian or modern Greek holds: a word of them alone is a Latin one in disguise.
_DISGUISE = re.compile("[іїјѕһԁԛԝӏүѵցոսօհᎠ-Ᏼ]")
# Digits and signs between two letters, and the letters that they stand for: "y0uth", "sch00l".
_INSIDE = re.compile(
    r"[013457@$!|¡](?:(?<=[A-Za-z].)(?=[013457@$!|¡]?[A-Za-z])|(?<=[A-Za-z][013457@$!|¡].)(?=[A-Za-z]))"
)
_STANDS_FOR = dict(zip("013457@$!|¡", "oieastasiii", strict=True))
# A letter that is written three times or more is stretched: no word of English has three.
_STRETCHED = re.compile(r"([A-Za-z])\1{2,}")
_WORD = re.compile(r"[^\W\d_]+")
_LATIN_LETTER = re.compile(r"[A-Za-z]")
# What a graph reads as weights: "(word:1.2)".
_WEIGHT = re.compile(r":\s*-?\d{0,4}(?:\.\d{0,8})?\s*(?=[)\]])")
# An age behind a name: "Emma (14)".
_NUMBER_IN_BRACKETS = re.compile(r"(?<=[A-Za-z])\s?\(([3-9]|1[0-7])\)(?![A-Za-z])")
_BRACKETS = dict.fromkeys(map(ord, "()[]{}\\"), " ")


def plain_forms(text: str) -> tuple[str, ...]:
    """The readings of a text in plain letters, ASCII digits and dashes, without accents; upper case stays.

    There is one reading, unless a hidden character or a bracket may stand either in a word or between two, letters of
    other alphabets look like Latin ones, there is an ñ, which makes other words than n, a digit or a sign stands
    between two letters, or a letter is stretched. A small number in brackets stands between commas: "Emma, 14,". The
    time is linear in the length of the text.
    """
    if not text.isascii():
        text = plain_characters(text)
    forms = [text]
    if any(character in text for character in "()[]{}\\"):
        text = _NUMBER_IN_BRACKETS.sub(r", \1,", _WEIGHT.sub("", text))
        forms = [text.translate(_BRACKETS), text.translate(dict.fromkeys(_BRACKETS, ""))]
    if not text.isascii():
        forms = [form.replace("\u200b", between) for form in forms for between in ("", " ")]
        forms += [_WORD.sub(_as_latin, form) for form in forms]
    forms += [_INSIDE.sub(_letter_for, form) for form in forms if _INSIDE.search(form)]
    for form in [form for form in forms if _STRETCHED.search(form)]:
        forms += [_STRETCHED.sub(r"\1", form), _STRETCHED.sub(r"\1\1", form)]
    return tuple(dict.fromkeys(forms))


def _letter_for(sign: re.Match[str]) -> str:
    return _STANDS_FOR[sign[0]]


def plain_characters(text: str) -> str:
    """NFKD without accents, hidden characters as U+200B, other digits as ASCII, and emoji of children as words."""
    text = _FRACTION.sub(lambda found: _FRACTIONS[found[0]], text)
    # An ñ is put together again: "niño" is a child, "Nino" a name.
    letters = unicodedata.normalize("NFKD", text).replace("n\u0303", "ñ").replace("N\u0303", "Ñ")
    plain = {each: _plain_character(each) for each in set(letters) if not each.isascii()}
    return letters.translate({ord(each): becomes for each, becomes in plain.items()}).translate(_SYMBOLS)


def _plain_character(character: str) -> str:
    kind = unicodedata.category(character)
    if kind in _ACCENTS:
        return ""
    if kind == _HIDDEN:
        return "\u200b"
    return str(unicodedata.digit(character)) if kind == "Nd" else character.translate(_LATIN)


def _as_latin(word: re.Match[str]) -> str:
    letters = word[0].replace("ñ", "n").replace("Ñ", "N")
    if letters.isascii():
        return letters
    latin = letters.translate(_LOOK_ALIKES)
    disguised = latin.isascii() and (len(latin) > 3 or _DISGUISE.search(letters))
    return latin if disguised or _LATIN_LETTER.search(letters) else letters
