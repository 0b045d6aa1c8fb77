"""How far a caption is from a pseudo-label: the normalised Levenshtein distance (Moonshine paper §3.2)."""

from collections.abc import Callable, Sequence

from rapidfuzz.distance import Levenshtein


def distance(caption: str, pseudo: str, clean: Callable[[str], str]) -> float:
    """Edits of characters that turn one text into the other, divided by the length of the longer: 0 same, 1 nothing.

    Args:
        clean: a normaliser: case and punctuation are no difference between captions.
    """
    return Levenshtein.normalized_distance(clean(caption), clean(pseudo))


def swapped(
    places: Sequence[int], captions: Sequence[str], pseudo: Sequence[str], limit: float, reach: int = 25
) -> dict[int, int]:
    """Among utterances whose caption is far from their pseudo-label: whose caption did each one get?

    Files of captions slip by a line, or two lines change places: then the words of an utterance are the caption of one
    nearby that is just as wrong.

    Args:
        places: where they stand in the manifest, ascending.
        captions, pseudo: normalised, of the same length.
        limit: the largest distance at which two texts are the same words.
        reach: how many of the others to look at before and after.

    Returns:
        place → place of the caption that fits, of those for which there is one.
    """
    found = {}
    for i, heard in enumerate(pseudo):
        best, at = limit, -1
        for j in range(max(0, i - reach), min(len(places), i + reach + 1)):
            if j != i and captions[j]:
                far = Levenshtein.normalized_distance(heard, captions[j], score_cutoff=best)
                if far < best or (far == best and at < 0):
                    best, at = far, j
        if at >= 0:
            found[places[i]] = places[at]
    return found
