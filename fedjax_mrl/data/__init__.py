"""Arrays of images and labels: what they are and where they come from."""
