"""A WordNet of a few words, in the format of its database files (wndb(5WN))."""

from pathlib import Path

#: Part of speech -> its synsets.
WORDS = {
    "noun": [("three", "3"), ("harbor", "harbour"), ("parking_lot", "car_park")],
    "adj": [("red", "crimson"), ("three", "3")],
}
PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def write_wordnet(folder: Path) -> None:
    """Write the files to where nltk looks for them in a data folder."""
    folder = folder / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for name in ("index.sense", "cntlist.rev", *(f"{part}.exc" for part in PARTS)):
        (folder / name).touch()
    (folder / "lexnames").write_text("00\tadj.all\t3\n")
    for part, letter in PARTS.items():
        data, offsets = "  1 WordNet 3.0 Copyright\n", {}
        for words in WORDS.get(part, []):
            for word in words:
                offsets.setdefault(word, []).append(len(data))
            data += f"{len(data):08} 00 {letter} {len(words):02x} {' 0 '.join(words)} 0 000 | a gloss  \n"
        (folder / f"data.{part}").write_text(data)
        index = (
            f"{word} {letter} {len(places)} 0 {len(places)} 0 {' '.join(f'{place:08}' for place in places)}  \n"
            for word, places in sorted(offsets.items())
        )
        (folder / f"index.{part}").write_text("".join(index))
