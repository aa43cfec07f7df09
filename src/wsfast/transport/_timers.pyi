from ._timers_py import Deadlines as Deadlines
from ._timers_py import __all__ as __all__
