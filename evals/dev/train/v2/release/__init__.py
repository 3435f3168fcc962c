"""The products of version 2: the exported model, and the bundled sets that it is measured on."""
