"""What every room needs, without any machine learning: errors, names, configurations, random numbers, progress."""
