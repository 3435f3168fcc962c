"""Searches for settings: VFlowOpt's calibration and skippable layers."""
