"""The main dock: data, poses, and the particle under the slider."""
