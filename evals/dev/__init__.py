"""Maintainers' code: training, experiments, tables and figures of this repository. In no wheel."""
