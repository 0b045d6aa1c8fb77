import pytest

from jaxspeech.data.scripts import parse_scripts, script, scripts, scripts_of
from jaxspeech.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Größe, naïve & œuvre: 10 µm, № 5!", {"Latin"}),
        ("Ёлка — это да", {"Cyrillic"}),
        ("コーヒーを飲む、人々", {"Katakana", "Hiragana", "Han"}),
        ("ｶﾀｶﾅ ＡＢＣ", {"Katakana", "Latin"}),
        ("한국어", {"Hangul"}),
        ("हिन्दी में", {"Devanagari"}),
        ("e\u0301te\u0301", {"Latin"}),  # combining marks belong to any script
        ("12.5 % …", set()),
        ("ᏣᎳᎩ", {"Cherokee"}),
    ],
)
def test_letters_tell_the_script_and_signs_do_not(text, expected):
    assert scripts(text) == expected


def test_what_looks_alike_is_told_apart():
    assert [script(c) for c in "aа"] == ["Latin", "Cyrillic"]


def test_languages_have_their_scripts():
    assert scripts_of("en-GB") == {"Latin"}
    assert scripts_of("ja") == {"Han", "Hiragana", "Katakana"}
    assert parse_scripts("latin, Han") == {"Latin", "Han"}
    with pytest.raises(UserError, match="--scripts"):
        scripts_of("tlh")
