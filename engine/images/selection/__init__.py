"""Choice of the best of several candidate images (equation 1 of the MESED paper)."""
