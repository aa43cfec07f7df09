from ._tls_py import ReceiveBuffer as ReceiveBuffer
from ._tls_py import TLSPipe as TLSPipe
from ._tls_py import __all__ as __all__
