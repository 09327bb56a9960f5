"""Gates, distilled from a frozen model."""
