"""What `minippo label` asks, keeps and learns."""
