"""MRC files: headers, lazily read image stacks, and a streaming writer."""

from napari_cryosphere.particles.mrc.stack import MrcStack, stack_writer, write_stack

__all__ = ["MrcStack", "stack_writer", "write_stack"]
