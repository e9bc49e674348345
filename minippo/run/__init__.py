"""What surrounds every stage; none of it is needed to understand PPO."""
