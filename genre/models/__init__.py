"""Models: architectures, training, the model card, prediction, the vote and the scores."""
