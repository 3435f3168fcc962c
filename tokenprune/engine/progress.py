"""What one call of a patched model knows of itself while it lasts."""

from __future__ import annotations

from tokenprune.engine.call import PerThread
from tokenprune.engine.forward_pass import ForwardPass
from tokenprune.sequence.packing import Packing
from tokenprune.tokens.encoded import EncodedImage


class Progress(PerThread):
    """The call that is in progress.

    encodes: whether a feature function is being called.
    records: the pictures that the model got already encoded, by modality.
    unprunable: its arguments that only fit the unpruned sequence.
    forward: the call of its base model.
    packing: which of the columns the logits are of, since the base model's last call; None if of all.
    """

    def __init__(self) -> None:
        self.encodes = False
        self.records: dict[str, list[EncodedImage]] = {}
        self.unprunable: list[str] = []
        self.forward: ForwardPass | None = None
        self.packing: Packing | None = None
