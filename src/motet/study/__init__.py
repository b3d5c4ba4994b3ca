"""Studies: arms times seeds, statistics, verdict."""
