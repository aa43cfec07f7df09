from ._head_py import __all__ as __all__
from ._head_py import find_fields as find_fields
from ._head_py import find_key as find_key
from ._head_py import lower_pairs as lower_pairs
from ._head_py import take_head as take_head
