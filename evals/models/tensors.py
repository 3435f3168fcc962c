"""The tensors that store a tensor: a quantised one (quanto, torchao) holds others, its integers and their scales."""

from collections.abc import Iterator

from torch import Tensor


def stored(tensor: Tensor) -> Iterator[Tensor]:
    """Iterate over the plain tensors that hold a tensor's values: itself, unless it is made of others."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
        return
    for name in flatten()[0]:
        yield from stored(getattr(tensor, name))


def stored_bytes(tensor: Tensor) -> int:
    return sum(part.nbytes for part in stored(tensor))
