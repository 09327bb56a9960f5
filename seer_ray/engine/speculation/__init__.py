"""Drafts that dense passes verify: what drafts, how much, and what came of it."""
