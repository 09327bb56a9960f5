"""Datasets, prompts, answer extraction and grading."""
