"""`Nowcast` inside the trainers of other libraries; each needs the extra of its name."""
