"""Operations: a queue of jobs and its workers, and what a person needs to watch and steer them."""
