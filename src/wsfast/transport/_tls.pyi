from ._tls_py import TLSPipe as TLSPipe
