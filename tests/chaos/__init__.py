"""Proof by force: workers that are killed between any two steps, and at random for minutes."""
