"""The parts that methods share: local training, losses, optimizers, servers, ..."""
