"""Entity encoders: from token ids to the state that stands for a mention."""
