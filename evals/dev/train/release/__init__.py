"""The products of a training: the bundled model, and the sets that it is measured on."""
