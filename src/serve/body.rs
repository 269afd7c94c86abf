//! Reading a body with a limit.

use axum::body::{Body, HttpBody as _};
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Of a body that is too large so much more is read and thrown away, before the answer: a client that is
/// still writing when the connection closes sees a broken pipe instead of the answer.
const DRAINED: usize = 48 << 20;

/// Few bodies are larger.
const COMMON: usize = 64 << 10;

/// Why a body was not taken: the answer's status and text.
pub(super) type Refusal = (StatusCode, String);

/// A body, and the room that it takes for as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Taken<'a> {
    pub(super) bytes: Vec<u8>,
    room: Option<SemaphorePermit<'a>>,
}

impl<'a> Taken<'a> {
    fn put(&mut self, data: &[u8], room: &'a Semaphore) -> Result<(), Refusal> {
        let length = self.bytes.len() + data.len();
        let held = self.room.as_ref().map_or(0, SemaphorePermit::num_permits);
        if length > held.max(COMMON) {
            // As vectors grow.
            let capacity = length.next_power_of_two();
            let more = u32::try_from(capacity - held).ok().and_then(|more| room.try_acquire_many(more).ok());
            let Some(more) = more else {
                return Err((StatusCode::SERVICE_UNAVAILABLE, "too many large bodies are being read\n".into()));
            };
            match &mut self.room {
                Some(held) => held.merge(more),
                none => *none = Some(more),
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

/// Reads a whole body of at most `limit` bytes. One that is larger than common takes its bytes from `room`, which all
/// share.
///
/// # Errors
/// When it is larger, there is no room, or the connection breaks.
pub(super) async fn read(mut body: Body, limit: usize, room: &Semaphore) -> Result<Taken<'_>, Refusal> {
    // As much as the client says, up to what is common: it may say more than it sends.
    let said = usize::try_from(body.size_hint().lower()).unwrap_or_default();
    let mut taken = Taken { bytes: Vec::with_capacity(said.min(COMMON)), room: None };
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, format!("the body can't be read: {error}\n")))?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= limit {
            taken.put(&data, room)?;
        } else {
            taken = Taken::default();
            if length > limit.saturating_add(DRAINED) {
                break;
            }
        }
    }
    if length > limit {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {} MiB\n", limit >> 20)));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures::{StreamExt as _, stream};

    use super::*;

    fn body(chunks: usize) -> Body {
        let chunks = stream::iter(0..chunks).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[b'a'; 1000])));
        Body::from_stream(chunks)
    }

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read_and_a_larger_one_is_refused() {
        let room = Semaphore::new(0);
        assert_eq!(read(body(3), 3000, &room).await.unwrap().bytes.len(), 3000);
        assert_eq!(read(body(4), 3000, &room).await.unwrap_err().0, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(read(Body::empty(), 3000, &room).await.unwrap().bytes.len(), 0);
    }

    #[tokio::test]
    async fn large_bodies_share_the_room_that_there_is() {
        // Each takes two thirds more than is common, and so the next power of two.
        let (large, limit, room) = (|| body(COMMON * 5 / 3000), 1 << 20, Semaphore::new(4 * COMMON));
        let one = read(large(), limit, &room).await.unwrap();
        let other = read(large(), limit, &room).await.unwrap();
        assert_eq!((one.bytes.len(), one.bytes.capacity(), room.available_permits()), (109_000, 2 * COMMON, 0));
        assert_eq!(read(large(), limit, &room).await.unwrap_err().0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(read(body(3), limit, &room).await.unwrap().bytes.len(), 3000, "a common one needs none");
        drop(one);
        assert_eq!(read(large(), limit, &room).await.unwrap().bytes.len(), 109_000);
        drop(other);
        assert_eq!(room.available_permits(), 4 * COMMON);
    }
}
