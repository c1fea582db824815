"""What the documentation site computes from the package: the reference and the theorem index."""
