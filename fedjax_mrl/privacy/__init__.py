"""The account of differential privacy: what rounds cost, by dp-accounting."""
