"""Chat models behind an OpenAI-compatible endpoint: client, cache of answers, cap on spending."""
