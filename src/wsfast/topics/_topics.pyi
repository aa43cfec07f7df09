from ._topics_py import Index as Index
from ._topics_py import Member as Member
from ._topics_py import Topic as Topic
