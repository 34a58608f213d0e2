"""Let rank_llm be imported without the engines that it imports. Runs in the peers' environment.

Its package imports torch, transformers and vLLM for rerankers that hold a model in the process.
Its prompts, its windows and its parsers use none of them, so empty modules take their places.
"""

import importlib.machinery
import sys
import types

ENGINES = ("torch", "transformers", "vllm")


class _Anything:
    """Takes whatever place a module's attribute has while other modules are defined."""

    def __getattr__(self, name):
        return _Anything()

    def __call__(self, *args, **kwargs):
        return _Anything()

    def __getitem__(self, key):
        return _Anything()

    def __mro_entries__(self, bases):
        return ()

    def __or__(self, other):
        return other

    def __ror__(self, other):
        return other

    def __bool__(self):
        return False


class _Module(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


class _Finder:
    """Finds an empty module for each engine that is not installed, and for all below it."""

    def __init__(self, names):
        self._names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self._names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        pass


def install():
    """Put empty modules in the places of engines that are not installed."""
    missing = [name for name in ENGINES if importlib.machinery.PathFinder.find_spec(name) is None]
    sys.meta_path.append(_Finder(missing))
