"""Look up what a bundle holds of its entities: descriptions, attributes, sentences, images."""
