"""RLHF with PPO, from scratch. `from minippo.ppo import gae` says where a thing lives; nothing is re-exported."""

__version__ = "0.1.0"
