"""Live metrics in MLflow."""

from seer_ray.tracking.mlflow_tracker import MLflowTracker, catch_up, open_tracker, unsent
from seer_ray.tracking.tracker import Dataset, NullTracker, Tracker

__all__ = ["Dataset", "MLflowTracker", "NullTracker", "Tracker", "catch_up", "open_tracker", "unsent"]
