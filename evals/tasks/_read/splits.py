"""Which questions of a set are asked: those of one split, or all but `train`."""


def chosen(wanted: str | None, found: set[str], where: str) -> set[str]:
    """Return the splits to ask of those that were `found` in a set; "" is that of a question without one.

    `where` says which file an error is about: it is one to want a split that is not there.
    """
    if wanted is None:
        return found - {"train"}
    if wanted not in found:
        raise ValueError(f"{where}: no split {wanted!r}; it has {', '.join(sorted(found - {''})) or 'none'}")
    return {wanted}
