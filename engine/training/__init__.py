"""Train encoders and language models on DeepSpeed, and cache the frozen layers."""
