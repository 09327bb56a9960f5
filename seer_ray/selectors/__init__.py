"""Selectors: one small protocol, one file a method."""

from seer_ray.selectors.base import CurrentPages, FullKeys, Query, Selector, StepView
from seer_ray.selectors.fixed import Random, Window
from seer_ray.selectors.make import make_selector
from seer_ray.selectors.oracle import Oracle
from seer_ray.selectors.quest import Quest
from seer_ray.selectors.seer import Seer

__all__ = [
    "CurrentPages",
    "FullKeys",
    "Oracle",
    "Query",
    "Quest",
    "Random",
    "Seer",
    "Selector",
    "StepView",
    "Window",
    "make_selector",
]
