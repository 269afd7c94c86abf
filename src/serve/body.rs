//! Reading a body with a limit.

use axum::body::{Body, HttpBody as _};
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Of a body that is too large so much more is read and thrown away, before the answer: a client that is
/// still writing when the connection closes sees a broken pipe instead of the answer.
const DRAINED: usize = 48 << 20;

/// Most bodies are no larger. For so much of each there is always room, and no more is made ready on a client's word.
pub(super) const FIRST: usize = 16 << 10;
/// Few bodies are larger, and they have a room of their own: they keep none of these out.
const COMMON: usize = 64 << 10;

/// Why a body was not taken: the answer's status and text.
pub(super) type Refusal = (StatusCode, String);

/// Bytes for all bodies under way that are larger than a first part, which all share.
pub(super) struct Room {
    common: Semaphore,
    large: Semaphore,
}

impl Room {
    pub(super) fn new(common: usize, large: usize) -> Self {
        Self { common: Semaphore::new(common), large: Semaphore::new(large) }
    }

    /// Room for a body of this capacity; none for one that needs none.
    fn take(&self, capacity: usize) -> Result<Option<SemaphorePermit<'_>>, Refusal> {
        if capacity <= FIRST {
            return Ok(None);
        }
        let room = if capacity > COMMON { &self.large } else { &self.common };
        let taken = u32::try_from(capacity).ok().and_then(|bytes| room.try_acquire_many(bytes).ok());
        let full = || (StatusCode::SERVICE_UNAVAILABLE, "too many large bodies are being read\n".to_owned());
        taken.map(Some).ok_or_else(full)
    }
}

/// A body, and the room that it takes for as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Taken<'a> {
    pub(super) bytes: Vec<u8>,
    room: Option<SemaphorePermit<'a>>,
}

impl<'a> Taken<'a> {
    fn put(&mut self, data: &[u8], room: &'a Room) -> Result<(), Refusal> {
        let length = self.bytes.len() + data.len();
        if length > self.bytes.capacity() {
            // As vectors grow.
            let capacity = length.next_power_of_two();
            let taken = room.take(capacity)?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
            // What it had before goes only now: until it was moved, it was there twice.
            self.room = taken;
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

/// Reads a whole body of at most `limit` bytes. One that is larger than a first part takes room for all of it.
///
/// # Errors
/// When it is larger, there is no room, or the connection breaks.
pub(super) async fn read(mut body: Body, limit: usize, room: &Room) -> Result<Taken<'_>, Refusal> {
    // As much as the client says, but no more than a first part: it may say more than it sends.
    let said = usize::try_from(body.size_hint().lower()).unwrap_or_default();
    let mut taken = Taken { bytes: Vec::with_capacity(said.min(FIRST)), room: None };
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
        let room = Room::new(0, 0);
        assert_eq!(read(body(3), 3000, &room).await.unwrap().bytes.len(), 3000);
        assert_eq!(read(body(4), 3000, &room).await.unwrap_err().0, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(read(Body::empty(), 3000, &room).await.unwrap().bytes.len(), 0);
    }

    #[tokio::test]
    async fn large_bodies_share_the_room_that_there_is() {
        // Each takes two thirds more than is common, and so the next power of two.
        let (large, limit, room) = (|| body(COMMON * 5 / 3000), 1 << 20, Room::new(2 * COMMON, 4 * COMMON));
        let left = || [&room.common, &room.large].map(Semaphore::available_permits);
        let one = read(large(), limit, &room).await.unwrap();
        let other = read(large(), limit, &room).await.unwrap();
        assert_eq!((one.bytes.len(), one.bytes.capacity(), left()), (109_000, 2 * COMMON, [2 * COMMON, 0]));
        assert_eq!(read(large(), limit, &room).await.unwrap_err().0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(read(body(60), limit, &room).await.unwrap().bytes.len(), 60_000, "a common one is not kept out");
        drop(one);
        assert_eq!(read(large(), limit, &room).await.unwrap().bytes.len(), 109_000);
        drop(other);
        assert_eq!(left(), [2 * COMMON, 4 * COMMON]);
    }

    #[tokio::test]
    async fn a_small_body_is_read_into_one_piece_and_all_others_take_room() {
        let (none, room, limit) = (Room::new(0, 0), Room::new(2 * FIRST, 0), 1 << 20);
        let said = |length: usize| Body::from(vec![b'a'; length]);
        for length in [7000, FIRST] {
            let taken = read(said(length), limit, &none).await.unwrap();
            assert_eq!((taken.bytes.len(), taken.bytes.capacity()), (length, length));
        }
        // However little more it is, and whether it was said or not.
        let ways: [fn() -> Body; 2] = [|| Body::from(vec![b'a'; FIRST + 1]), || body(17)];
        for more in ways {
            assert_eq!(read(more(), limit, &none).await.unwrap_err().0, StatusCode::SERVICE_UNAVAILABLE);
            let one = read(more(), limit, &room).await.unwrap();
            assert_eq!((one.bytes.capacity(), room.common.available_permits()), (2 * FIRST, 0));
            assert_eq!(read(more(), limit, &room).await.unwrap_err().0, StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!(room.common.available_permits(), 2 * FIRST);
    }
}
