"""The federation over a real network, by Flower: extra `flower`; docs/deployment.md."""
