"""Language models: their layers, masks and attention."""
