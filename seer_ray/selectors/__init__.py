"""Selectors: one small base class, one file a method; ``config.selectors`` is the table of them."""
