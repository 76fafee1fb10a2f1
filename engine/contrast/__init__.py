"""Mining of ultra-fine contrastive learning: which recalled entities agree with a query's seeds."""
