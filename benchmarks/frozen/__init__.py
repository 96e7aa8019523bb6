"""Cases that are chosen and frozen before an optimizer is trained for them, and the evaluation on all of them."""
