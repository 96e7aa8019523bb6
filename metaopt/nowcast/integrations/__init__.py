"""Nowcasts inside the trainers of other libraries, one file each; each needs the extra of its name."""
