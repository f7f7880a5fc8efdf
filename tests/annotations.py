"""The checker that reads shapes and types in annotations while tests run; an int is a float, as type checkers hold."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
