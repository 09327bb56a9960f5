"""Training: gates by distillation, small models from scratch. One loop for both."""
