"""How the numbers of `LearnedSOAP` were found: evolution over whole trainings of small networks."""
