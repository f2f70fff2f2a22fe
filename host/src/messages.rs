//! Messages on a stream of bytes: each its length, as a u32 in big-endian, and its bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Sends one message.
///
/// # Errors
/// The stream ended.
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await?;
    stream.flush().await
}

/// Receives one message, of at most so many bytes.
///
/// # Errors
/// The stream ended, or a longer message comes: nothing of it is read.
pub async fn receive(stream: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await? as usize;
    if length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_come_whole_and_none_that_is_too_long() {
        let (mut one, mut other) = tokio::io::duplex(64);
        for message in [b"".as_slice(), b"hello", &[7; 20]] {
            send(&mut one, message).await.unwrap();
            assert_eq!(receive(&mut other, 20).await.unwrap(), message);
        }
        send(&mut one, &[7; 21]).await.unwrap();
        let refused = receive(&mut other, 20).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        drop(one);
        assert!(receive(&mut other, 20).await.is_err());
    }
}
