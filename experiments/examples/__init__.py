"""Small programs to begin with: own networks, an own method, an own loop."""
