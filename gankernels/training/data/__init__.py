"""Training data: loaders that return one tensor, and an endless stream of batches cut from it.

Everything the recipes train on fits in memory, so a data set is one ``uint8`` tensor and a batch is
one ``index_select`` of it: no worker processes, and a position that is saved and restored exactly.
"""

from gankernels.training.data.images import ImageData
from gankernels.training.data.loading import load
from gankernels.training.data.mixture import GAUSSIAN_SIGMA, gaussian_centres
from gankernels.training.data.stream import BatchStream

__all__ = ["GAUSSIAN_SIGMA", "BatchStream", "ImageData", "gaussian_centres", "load"]
