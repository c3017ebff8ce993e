"""A network with its transform, and how patches go through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spahgc.encoders._layout import NO_LEVELS, Levels
from spahgc.encoders._record import EncoderRecord

if TYPE_CHECKING:
    from torch import Tensor, nn

Transform = Callable[[Any], "Tensor"]
"""``PIL.Image`` -> tensor, channels x height x width."""

Result = TypeVar("Result")

MAX_UINT8 = 255.0

PLANE = (2, 3)
"""Axes of the plane in batch x channels x height x width."""

POOLED_FIX = "Wrap the module so that forward returns one pooled vector a patch."


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder.

    Parameters
    ----------
    record
        What has to be known to compare its embeddings with others.
    module
        Network: batch x 3 x height x width in, batch x dim out.
    transform
        Makes the network's input from a ``PIL.Image`` of `record.input_px` squared. None: pixels are divided by 255
        and normalised by `record.mean` and `record.std`.
    """

    record: EncoderRecord
    module: nn.Module
    transform: Transform | None = None

    def encode(
        self,
        patches: NDArray[np.uint8],
        *,
        device: str,
        levels: Levels = NO_LEVELS,
        rotations: int = 1,
        turn_output: bool = True,
    ) -> NDArray[np.float32]:
        """Embed patches, all in one batch.

        Parameters
        ----------
        patches
            Patches x input_px x input_px x 3, uint8, RGB.
        device
            Torch device. The module moves there and stays there; it is put into eval mode.
        levels
            Intermediate levels; mean and standard deviation over the plane of each follow the output.
        rotations
            Quarter turns of the patches over which the numbers are averaged; each is a pass through the network.
        turn_output
            False: the output is that of the patches as they are, and only the levels are averaged.

        Returns
        -------
        Embeddings, patches x dim; with levels patches x (dim + 2 * their widths).

        Raises
        ------
        TypeError
            If the patches are not uint8, or the transform or the network returns no tensor.
        ValueError
            If the shape of the patches does not fit, or the network's output is not finite numbers of that shape.
        """
        side = self.record.input_px
        if patches.dtype != np.uint8:
            raise TypeError(
                f'patches are {patches.dtype}, encoder "{self.record.name}" needs uint8 (0 to 255). Convert them first.'
            )
        if patches.ndim != 4 or patches.shape[1:] != (side, side, 3):
            raise ValueError(
                f"patches have shape {patches.shape}, encoder "
                f'"{self.record.name}" needs (n, {side}, {side}, 3). Cut or resize them to {side} pixels.'
            )
        expected = (len(patches), self.record.dim + levels.n_columns)
        if len(patches) == 0:
            return np.empty(expected, dtype=np.float32)
        features = self._forward(patches, device, levels, rotations, turn_output)
        if features.shape != expected:
            raise ValueError(
                f'encoder "{self.record.name}" returned shape {features.shape} for {len(patches)} patches, expected '
                f"{expected}. {POOLED_FIX}"
            )
        broken = int((~np.isfinite(features)).any(1).sum())
        if broken:
            raise ValueError(
                f'encoder "{self.record.name}" returned NaN or infinite numbers for {broken} of {len(patches)} '
                "patches. Check its weights and transform."
            )
        return features

    def run(self, patches: NDArray[np.uint8], compute: Callable[[nn.Module, Tensor], Result], *, device: str) -> Result:
        """Let `compute` do with the network and the `patches` what it wants, on a `device`, without gradients.

        In the precision of the record, also where the caller is inside of an autocast block of another one.
        """
        import torch

        reduced = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.record.precision)

        # Always, not only where module.training is set: a submodule may train while its parent does not.
        self.module.eval()
        self.module.to(device)
        kind = torch.device(device).type
        with torch.inference_mode(), torch.autocast(kind, dtype=reduced, enabled=reduced is not None):
            return compute(self.module, self._batch(patches, device))

    def _forward(
        self,
        patches: NDArray[np.uint8],
        device: str,
        levels: Levels = NO_LEVELS,
        rotations: int = 1,
        turn_output: bool = True,
    ) -> NDArray[np.float32]:
        """Run the network as :meth:`encode` describes it, without the checks of shapes and numbers."""

        def compute(module: nn.Module, batch: Tensor) -> Tensor:
            return self._mean_of_rotations(module, batch, levels, rotations, turn_output)

        return self.run(patches, compute, device=device).float().cpu().numpy()

    def _mean_of_rotations(
        self, module: nn.Module, batch: Tensor, levels: Levels, rotations: int, turn_output: bool
    ) -> Tensor:
        """Average output and levels over quarter turns of the patches, one pass for each; batch x all numbers."""
        import torch

        upright = self._output_and_levels(module, batch, levels)
        nothing_to_turn = not turn_output and not levels.indices
        if rotations == 1 or nothing_to_turn:
            return upright
        total = upright
        for _ in range(rotations - 1):
            # Contiguous, since a network may look at its input as one piece of memory.
            batch = torch.rot90(batch, 1, PLANE).contiguous()
            total = total + self._output_and_levels(module, batch, levels)
        mean = total / rotations
        if not turn_output:
            dim = upright.shape[1] - levels.n_columns
            mean[:, :dim] = upright[:, :dim]
        return mean

    def _output_and_levels(self, module: nn.Module, batch: Tensor, levels: Levels) -> Tensor:
        """Output of the network, and behind it mean and standard deviation over the plane of each level."""
        import torch

        if levels.indices:
            network: Any = module  # timm's networks have methods that torch's Module does not declare
            last, planes = network.forward_intermediates(batch, indices=list(levels.indices))
            statistics = (block for plane in planes for block in plane_statistics(plane))
            return torch.cat([network.forward_head(last), *statistics], dim=1)
        output = module(batch)
        if not isinstance(output, torch.Tensor):
            raise TypeError(
                f'encoder "{self.record.name}" returned a {type(output).__name__}, expected a tensor of '
                f"patches x numbers. {POOLED_FIX}"
            )
        return output

    def _batch(self, patches: NDArray[np.uint8], device: str) -> Tensor:
        """Make the network's input from patches."""
        import torch

        if self.transform is None:
            # Torch warns of arrays that it could write through although their owner forbids it.
            pixels = torch.from_numpy(np.require(patches, requirements=["C", "W"]))
            scaled = pixels.to(device).permute(0, 3, 1, 2).float() / MAX_UINT8
            mean, std = (
                torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (self.record.mean, self.record.std)
            )
            return (scaled - mean) / std

        from PIL import Image

        inputs = [self.transform(Image.fromarray(patch)) for patch in patches]
        wrong = next((item for item in inputs if not isinstance(item, torch.Tensor)), None)
        if wrong is not None:
            raise TypeError(
                f'the transform of encoder "{self.record.name}" returned a {type(wrong).__name__}, expected a tensor '
                "of 3 x height x width. Let it end with a conversion such as torchvision's ToTensor()."
            )
        return torch.stack(inputs).to(device=device, dtype=torch.float32)


def plane_statistics(level: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the plane (of the population: 0 for a plane of one pixel), batch x channels."""
    plane = level.flatten(2)
    mean = plane.mean(2, keepdim=True)
    # Four times as fast as torch.var_mean on a CPU.
    return mean.squeeze(2), (plane - mean).square_().mean(2).sqrt_()
