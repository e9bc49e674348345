"""RLHF with PPO, from scratch. Nothing is re-exported: `from minippo.ppo import gae`."""

__version__ = "0.1.0"
