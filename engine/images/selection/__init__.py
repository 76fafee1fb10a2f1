"""Select the best of several candidate images (MESED, equation 1)."""
