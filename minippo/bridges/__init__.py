"""Ways to and from other libraries: models, and an environment."""
