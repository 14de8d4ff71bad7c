"""Training and evaluation on a whole data set: the paper's protocol."""
