from ._topics_py import Index as Index
from ._topics_py import Member as Member
from ._topics_py import Topic as Topic
from ._topics_py import __all__ as __all__
