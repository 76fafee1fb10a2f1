"""Models: encoders of text, images and both, and the parts that they are made of."""
