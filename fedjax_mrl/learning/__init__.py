"""What methods are made of: local training, losses, optimizers, servers, prototypes."""
