"""Encode texts, images and both: encoders and the parts that they are made of."""
