from ._channel_py import Channel as Channel
from ._channel_py import Endpoint as Endpoint
from ._channel_py import Turn as Turn
from ._channel_py import __all__ as __all__
