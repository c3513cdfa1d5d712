"""Convolutions and matrix products, each computed as suits the device."""
