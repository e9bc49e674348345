"""What several commands need, and what the three stages report with."""
