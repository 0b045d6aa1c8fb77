"""Which writing systems a text is in, and which a language is written in.

A script tells English from Russian; it does not tell English from German. Characters are sorted by the names that
Unicode gives them ("CYRILLIC SMALL LETTER A"), which the standard library knows.
"""

import functools
import unicodedata

from jaxspeech.errors import UserError

# Languages (ISO 639-1, and a few of 639-3) and their scripts.
_OF_LANGUAGES = {
    "Latin": "af az bs ca cs cy da de en eo es et eu fi fil fr ga gl ha hr hu id is it jv la lb lt lv mg mi ms mt nl "
    "nn no nb oc pl pt ro sk sl so sq sv sw tl tr uz vi yo zu",
    "Cyrillic": "be bg kk ky mk mn ru sr tg tt uk",
    "Arabic": "ar fa ps sd ug ur",
    "Devanagari": "hi mr ne sa",
    "Hebrew": "he yi",
    "Greek": "el",
    "Armenian": "hy",
    "Georgian": "ka",
    "Bengali": "as bn",
    "Gurmukhi": "pa",
    "Gujarati": "gu",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Sinhala": "si",
    "Thai": "th",
    "Lao": "lo",
    "Myanmar": "my",
    "Khmer": "km",
    "Tibetan": "bo",
    "Ethiopic": "am ti",
    "Han": "zh yue ja ko cmn",
    "Hiragana": "ja",
    "Katakana": "ja",
    "Hangul": "ko",
}
SCRIPTS = tuple(_OF_LANGUAGES)
_BY_FIRST_WORD = {name.upper(): name for name in SCRIPTS} | {"CJK": "Han", "IDEOGRAPHIC": "Han"}
_SHARED = ["COMBINING", "MODIFIER", "KATAKANA-HIRAGANA", "FEMININE", "MASCULINE", "MICRO", "MATHEMATICAL"]
_WIDTHS = ("FULLWIDTH", "HALFWIDTH")


@functools.lru_cache(maxsize=1 << 16)
def script(character: str) -> str | None:
    """The script of a character ("Latin"); None for what all share: digits, punctuation, symbols, combining marks.

    A letter of a script that is not in `SCRIPTS` has the first word of its Unicode name ("Cherokee").
    """
    category = unicodedata.category(character)
    if category[0] not in "LM":
        return None
    words = unicodedata.name(character, "").split()
    if words and words[0] in _WIDTHS:
        words = words[1:]
    if not words or words[0] in _SHARED:
        return None
    return _BY_FIRST_WORD.get(words[0]) or words[0].capitalize()


@functools.lru_cache(maxsize=1 << 12)
def scripts(text: str) -> frozenset[str]:
    """All scripts of a text."""
    return frozenset(filter(None, map(script, set(text))))


def scripts_of(language: str) -> frozenset[str]:
    """The scripts that a language ("ja", "en-GB") is written in. Raises `UserError` for one that is not known here."""
    code = language.replace("_", "-").lower().split("-")[0]
    found = frozenset(name for name, codes in _OF_LANGUAGES.items() if code in codes.split())
    if not found:
        raise UserError(f"--language {language}: its script is not known here; name its scripts with --scripts")
    return found


def parse_scripts(names: str) -> frozenset[str]:
    """Scripts of a list such as "Latin,Greek". Raises `UserError` for a name that is none."""
    given = [name.strip().capitalize() for name in names.split(",") if name.strip()]
    wrong = [name for name in given if name not in SCRIPTS]
    if wrong or not given:
        raise UserError(f"--scripts {names}: no script {', '.join(wrong) or 'named'}; there are {', '.join(SCRIPTS)}")
    return frozenset(given)
