from ._codec_py import Decoder as Decoder
from ._codec_py import Encoder as Encoder
from ._codec_py import __all__ as __all__
from ._codec_py import apply_mask as apply_mask
from ._codec_py import encode_frame as encode_frame
