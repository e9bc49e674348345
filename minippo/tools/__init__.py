"""What you look at models with; none of it is needed to understand PPO."""
