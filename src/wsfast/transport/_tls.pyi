from ._tls_py import ReceiveBuffer as ReceiveBuffer
from ._tls_py import TLSPipe as TLSPipe
