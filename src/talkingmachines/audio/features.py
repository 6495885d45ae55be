"""What the models hear: log-mel columns, strictly causal; and where somebody speaks.

Shapes: B batch, T video frames, J = 4T columns of 10 ms, M mel bands.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from talkingmachines.types import SAMPLE_RATE, SAMPLES_PER_FRAME

N_MELS = 80
HOP = SAMPLE_RATE // 100
COLUMNS_PER_FRAME = SAMPLES_PER_FRAME // HOP
WINDOW = 400
HISTORY = WINDOW - HOP
"""Samples before its own 10 ms that a column sees."""

_FFT = 512
_FLOOR = 1e-6
"""Added to the mel power before the logarithm. Full scale is about 1; this is the noise of a quiet room."""
