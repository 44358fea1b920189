"""What Bibwire costs, measured side by side in one run: `make bench`. Figures, never gates."""
