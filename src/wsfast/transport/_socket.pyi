from ._socket_py import Addresses as Addresses
from ._socket_py import Receiver as Receiver
from ._socket_py import SocketTransport as SocketTransport
from ._socket_py import __all__ as __all__
from ._socket_py import accept as accept
from ._socket_py import nothing_unread_at as nothing_unread_at
