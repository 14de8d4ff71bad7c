"""The model: encoder, centers, losses, optimizers."""
