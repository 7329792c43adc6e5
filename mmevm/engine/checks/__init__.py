"""Checks of a config and its datasets before a model is built."""
