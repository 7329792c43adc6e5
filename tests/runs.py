"""Training and evaluation in the tests' process."""

from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer


def forget_runs() -> None:
    """Drop what MMEngine keeps of runs by their names: scopes, messages, loggers, visualizers with their folders.

    Two runs of one config in the same second have the same name, and the second would get what the first one left, such
    as its log file.
    """
    kinds = [DefaultScope, MessageHub, Visualizer]
    for kind in kinds:
        kind._instance_dict.clear()
        kinds += kind.__subclasses__()
    MMLogger._instance_dict.clear()
