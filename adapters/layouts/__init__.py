"""Layouts of visual tokens that several families share."""
