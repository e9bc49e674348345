"""What you look at models with, a file for each command; none of it is needed to understand PPO."""
