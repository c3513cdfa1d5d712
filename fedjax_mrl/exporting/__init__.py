"""Personal models as files that other programs can use, and back."""
