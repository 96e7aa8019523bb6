"""Names of runs that their launcher made: which of them mean something, and which MLflow drew at random."""

from mlflow.utils import name_utils


def is_random(name: str | None) -> bool:
    """Whether a run's name is missing or drawn by MLflow (`bold-fox-12`), so that it may be replaced.

    The store draws it where nobody gives one, and leaves no other trace of that. Only MLflow's own words count:
    `sweep-lr-3` is a name that somebody gave. A newer MLflow without these lists keeps all names.
    """
    if not name:
        return True
    predicate, _, rest = name.partition("-")
    noun, _, number = rest.partition("-")
    predicates, nouns = (getattr(name_utils, f"_GENERATOR_{words}", ()) for words in ("PREDICATES", "NOUNS"))
    return number.isdecimal() and predicate in map(str.lower, predicates) and noun in map(str.lower, nouns)
