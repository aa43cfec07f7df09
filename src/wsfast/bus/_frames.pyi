from ._frames_py import HEAD_SIZE as HEAD_SIZE
from ._frames_py import MAX_FRAME as MAX_FRAME
from ._frames_py import MESSAGE as MESSAGE
from ._frames_py import __all__ as __all__
from ._frames_py import make as make
from ._frames_py import take as take
