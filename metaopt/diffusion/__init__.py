"""Text-to-video diffusion in small: captioned shapes, a network of Wan's and UMT5's classes, embeddings, samples.

The worked example of adapters. Only what is used is imported; the network needs the extra `metaopt[adapters]`.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names

if TYPE_CHECKING:
    from .captions import NEW_WORDS as NEW_WORDS
    from .captions import Scene as Scene
    from .captions import Tokenizer as Tokenizer
    from .embeddings import EmbeddingCache as EmbeddingCache
    from .embeddings import encoder_digest as encoder_digest
    from .flow import Noisy as Noisy
    from .flow import flow_batch as flow_batch
    from .flow import pack as pack
    from .flow import unpack as unpack
    from .network import TextToVideo as TextToVideo
    from .network import TextToVideoConfig as TextToVideoConfig
    from .sampling import PROMPTS as PROMPTS
    from .sampling import sample as sample
    from .sampling import video_chart as video_chart
    from .shapes import draw_videos as draw_videos
    from .shapes import nearest_scenes as nearest_scenes
    from .task import CaptionedShapes as CaptionedShapes
    from .task import CaptionedShapesConfig as CaptionedShapesConfig

_MODULES = {
    "NEW_WORDS": "captions",
    "PROMPTS": "sampling",
    "CaptionedShapes": "task",
    "CaptionedShapesConfig": "task",
    "EmbeddingCache": "embeddings",
    "Noisy": "flow",
    "Scene": "captions",
    "TextToVideo": "network",
    "TextToVideoConfig": "network",
    "Tokenizer": "captions",
    "draw_videos": "shapes",
    "encoder_digest": "embeddings",
    "flow_batch": "flow",
    "nearest_scenes": "shapes",
    "pack": "flow",
    "sample": "sampling",
    "unpack": "flow",
    "video_chart": "sampling",
}

__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)
