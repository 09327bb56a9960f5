"""Kinds of layers: one file each, with what it does in prefill and in a decode step."""
