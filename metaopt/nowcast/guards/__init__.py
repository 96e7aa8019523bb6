"""Guards of nowcasts: functions that measure losses on held-out data, and what makes them from data and a loss."""
