"""The training step and schedule on DeepSpeed, and the cache of the frozen layers."""
