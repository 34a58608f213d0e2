"""Data sets in the form that `shelfwise evaluate` takes: by name, from files that a user has."""

from eval.convert.converters import convert_data, converter_names
from eval.convert.writing import Converted

__all__ = ["Converted", "convert_data", "converter_names"]
