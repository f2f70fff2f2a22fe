//! Frames on a stream: 2,400 bytes each and nothing else, so that no length says anything.

use std::io;
use std::pin::Pin;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::LinkError;

/// Length of a frame in bytes.
pub const FRAME: usize = 2_400;
/// How many frames at most go into one write, or come from one read.
const BATCH: usize = 16;

/// The sending half of a link.
pub struct FrameSender {
    stream: Pin<Box<dyn AsyncWrite + Send>>,
    buffer: Vec<u8>,
    /// Set while a write is under way: a write that was given up half way leaves the stream out of step.
    writing: bool,
}

impl FrameSender {
    pub(crate) fn new(stream: impl AsyncWrite + Send + 'static) -> Self {
        Self { stream: Box::pin(stream), buffer: Vec::new(), writing: false }
    }

    /// Sends one frame. It has left this process when this returns.
    ///
    /// # Errors
    /// When the link is gone. Also for ever after a call whose future was dropped before it ended.
    pub async fn send(&mut self, frame: &[u8; FRAME]) -> Result<(), LinkError> {
        self.begin()?;
        self.stream.write_all(frame).await.map_err(LinkError::Io)?;
        self.finish().await
    }

    /// Sends several frames, up to sixteen in one write: a third of the cost of one by one.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn send_all(&mut self, frames: &[Box<[u8; FRAME]>]) -> Result<(), LinkError> {
        self.begin()?;
        for batch in frames.chunks(BATCH) {
            self.buffer.clear();
            for frame in batch {
                self.buffer.extend_from_slice(frame.as_slice());
            }
            self.stream.write_all(&self.buffer).await.map_err(LinkError::Io)?;
        }
        self.finish().await
    }

    /// Says the end of the stream after the last frame. The other end reads all that was sent.
    ///
    /// # Errors
    /// When the link is gone already.
    pub async fn close(mut self) -> Result<(), LinkError> {
        self.stream.close().await.map_err(LinkError::Io)
    }

    fn begin(&mut self) -> Result<(), LinkError> {
        if std::mem::replace(&mut self.writing, true) {
            return Err(LinkError::Io(io::Error::other("an earlier write was given up half way")));
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), LinkError> {
        self.stream.flush().await.map_err(LinkError::Io)?;
        self.writing = false;
        Ok(())
    }
}

/// The receiving half of a link. Its methods may be cancelled at any time: no byte is lost.
pub struct FrameReceiver {
    stream: Pin<Box<dyn AsyncRead + Send>>,
    /// Room for a batch; `start..end` has arrived and was not handed out.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl FrameReceiver {
    pub(crate) fn new(stream: impl AsyncRead + Send + 'static) -> Self {
        let buffer = vec![0; BATCH * FRAME].into_boxed_slice();
        Self { stream: Box::pin(stream), buffer, start: 0, end: 0 }
    }

    /// The next frame; `None` when the other end has closed.
    ///
    /// # Errors
    /// [`LinkError::Truncated`] when the stream ends within a frame; otherwise when the link is gone.
    pub async fn next(&mut self) -> Result<Option<Box<[u8; FRAME]>>, LinkError> {
        Ok(if self.fill().await? { self.take() } else { None })
    }

    /// Waits for a frame, then moves those that have arrived, at most `max`, to the end of `frames`. How many
    /// that were: at least one, or zero when the other end has closed (or `max` is zero).
    ///
    /// # Errors
    /// As for [`next`](Self::next).
    pub async fn next_batch(
        &mut self,
        frames: &mut Vec<Box<[u8; FRAME]>>,
        max: usize,
    ) -> Result<usize, LinkError> {
        if !self.fill().await? {
            return Ok(0);
        }
        let before = frames.len();
        while frames.len() - before < max {
            let Some(frame) = self.take() else { break };
            frames.push(frame);
        }
        Ok(frames.len() - before)
    }

    /// Reads until there is a whole frame; `false` at the end of the stream.
    async fn fill(&mut self) -> Result<bool, LinkError> {
        while self.end - self.start < FRAME {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            // There is room: less than one frame waits in a buffer of sixteen.
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.stream.read(room).await.map_err(LinkError::Io)? {
                0 if self.end == 0 => return Ok(false),
                0 => return Err(LinkError::Truncated),
                count => self.end += count,
            }
        }
        Ok(true)
    }

    fn take(&mut self) -> Option<Box<[u8; FRAME]>> {
        let waiting = self.buffer.get(self.start..self.end)?;
        let frame = Box::new(*waiting.first_chunk()?);
        self.start += FRAME;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    fn receiver(length: usize) -> FrameReceiver {
        FrameReceiver::new(Cursor::new(vec![7; length]))
    }

    #[tokio::test]
    async fn a_stream_that_ends_between_frames_has_ended() {
        let mut receiver = receiver(2 * FRAME);
        assert_eq!(receiver.next().await.unwrap(), Some(Box::new([7; FRAME])));
        assert!(receiver.next().await.unwrap().is_some());
        assert!(receiver.next().await.unwrap().is_none());
        assert!(receiver.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_frame_is_truncated() {
        for cut in [1, FRAME - 1] {
            let mut receiver = receiver(FRAME + cut);
            assert!(receiver.next().await.unwrap().is_some());
            assert!(matches!(receiver.next().await, Err(LinkError::Truncated)));
        }
    }

    #[tokio::test]
    async fn a_batch_is_what_has_arrived_in_order() {
        let bytes: Vec<u8> = (0..40).flat_map(|n| [n; FRAME]).collect();
        let mut receiver = FrameReceiver::new(Cursor::new(bytes));
        let mut frames = Vec::new();
        assert_eq!(receiver.next_batch(&mut frames, 10).await.unwrap(), 10);
        assert_eq!(receiver.next_batch(&mut frames, 100).await.unwrap(), BATCH - 10);
        while receiver.next_batch(&mut frames, 100).await.unwrap() > 0 {}
        assert!(frames.iter().enumerate().all(|(n, frame)| frame[..] == [n as u8; FRAME]));
        assert_eq!(frames.len(), 40);
    }

    #[tokio::test]
    async fn a_batch_is_one_write() {
        /// Counts how many writes there were, and the bytes of each.
        #[derive(Clone, Default)]
        struct Sink(std::sync::Arc<std::sync::Mutex<Vec<usize>>>);
        impl AsyncWrite for Sink {
            fn poll_write(
                self: Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<io::Result<usize>> {
                self.0.lock().unwrap().push(buf.len());
                std::task::Poll::Ready(Ok(buf.len()))
            }
            fn poll_flush(
                self: Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
            fn poll_close(
                self: Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
        }
        let sink = Sink::default();
        let mut sender = FrameSender::new(sink.clone());
        let frames: Vec<_> = (0..20).map(|_| Box::new([1; FRAME])).collect();
        sender.send_all(&frames).await.unwrap();
        sender.send(&frames[0]).await.unwrap();
        assert_eq!(*sink.0.lock().unwrap(), [16 * FRAME, 4 * FRAME, FRAME]);
    }
}
