//! What links hand out, and what passes it on takes.

use shoal_sphinx::FRAME_LEN;

/// Frames as a link's receiver hands them out, each in a box of its own.
pub(super) type Frames = Vec<Box<[u8; FRAME_LEN]>>;
