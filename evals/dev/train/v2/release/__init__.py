"""What version 2's training ends in: the exported model, and the bundled sets that it is measured on."""
