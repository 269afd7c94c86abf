//! Reading a body with a limit.

use std::{fmt::Display, net::IpAddr};

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes};

use super::pool::{Part, Pool};

/// Of a body that is too large so much more is read and thrown away, before the answer: a client that is
/// still writing when the connection closes sees a broken pipe instead of the answer.
const DRAINED: usize = 48 << 20;

/// Most bodies are no larger. For so much of each there is always room, and no more is made ready on a client's word.
pub(super) const FIRST: usize = 16 << 10;
/// Few bodies are larger, and they have a room of their own: they keep none of these out.
const COMMON: usize = 64 << 10;

/// Why a body was not taken: the answer's status and text.
pub(super) type Refusal = (StatusCode, String);

/// For common bodies under way of which a first part is not all: a third of all connections may send the largest of them.
/// The pod may have 256 MiB, and connections can fill 96 of them besides: each a handshake of 64 KiB, or less later.
pub(super) const COMMON_ROOM: usize = 32 << 20;
/// For bodies that are larger.
pub(super) const LARGE_ROOM: usize = 32 << 20;

/// Of so much, how much one address may have: all but a quarter. There may be one API server, or all may come from one
/// address: it has room for more than 380 of the largest common bodies, three times as many as are judged at once
/// (`MAX_IN_FLIGHT` of the webhook), and for five updates of objects as large as etcd takes them (1.5 MiB, twice). Where
/// somebody else fills that by sending slowly, what is left to API servers is about as much as is judged at once.
const fn share(of: usize) -> usize {
    of - of / 4
}

/// Bytes for all bodies under way that are larger than a first part, which all share.
pub(super) struct Room {
    common: Pool,
    large: Pool,
}

impl Room {
    pub(super) const fn new(common: usize, large: usize) -> Self {
        Self { common: Pool::new(common, share(common)), large: Pool::new(large, share(large)) }
    }

    /// Room for a body of this capacity, which comes from an address; none for one that needs none.
    fn take(&self, peer: IpAddr, capacity: usize) -> Result<Option<Part<'_>>, Refusal> {
        if capacity <= FIRST {
            return Ok(None);
        }
        let room = if capacity > COMMON { &self.large } else { &self.common };
        let full = || (StatusCode::SERVICE_UNAVAILABLE, "too many large bodies are being read\n".to_owned());
        room.take(peer, capacity).map(Some).ok_or_else(full)
    }
}

/// A body, and the room that it takes for as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Taken<'a> {
    pub(super) bytes: Vec<u8>,
    room: Option<Part<'a>>,
}

impl<'a> Taken<'a> {
    fn put(&mut self, data: &[u8], (room, peer): (&'a Room, IpAddr)) -> Result<(), Refusal> {
        let length = self.bytes.len() + data.len();
        if length > self.bytes.capacity() {
            // As vectors grow.
            let capacity = length.next_power_of_two();
            let taken = room.take(peer, capacity)?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
            // What it had before goes only now: until it was moved, it was there twice.
            self.room = taken;
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

/// Reads a whole body of at most `limit` bytes. One that is larger than a first part takes room for all of it, of what
/// its address may have.
///
/// # Errors
/// When it is larger, there is no room, or the connection breaks.
pub(super) async fn read<B>(mut body: B, limit: usize, room: (&Room, IpAddr)) -> Result<Taken<'_>, Refusal>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
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
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::{Either, Empty, Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

    /// Addresses of three who ask.
    fn peers() -> [IpAddr; 3] {
        [1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]))
    }

    /// A body that does not say how long it is.
    fn body(chunks: usize) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let chunk = |_| Ok(Frame::data(Bytes::from_static(&[b'a'; 1000])));
        StreamBody::new(stream::iter((0..chunks).map(chunk)))
    }

    /// One that says it.
    fn said(length: usize) -> Full<Bytes> {
        vec![b'a'; length].into()
    }

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read_and_a_larger_one_is_refused() {
        let (room, [one, ..]) = (Room::new(0, 0), peers());
        assert_eq!(read(body(3), 3000, (&room, one)).await.unwrap().bytes.len(), 3000);
        assert_eq!(read(body(4), 3000, (&room, one)).await.unwrap_err().0, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(read(Empty::new(), 3000, (&room, one)).await.unwrap().bytes.len(), 0);
    }

    #[tokio::test]
    async fn large_bodies_share_the_room_that_there_is() {
        // Each takes two thirds more than is common, and so the next power of two.
        let (large, limit, room) = (|| body(COMMON * 5 / 3000), 1 << 20, Room::new(2 * COMMON, 4 * COMMON));
        let [one, other, third] = peers().map(|peer| (&room, peer));
        let left = || [&room.common, &room.large].map(Pool::left);
        let ones = read(large(), limit, one).await.unwrap();
        assert_eq!((ones.bytes.len(), ones.bytes.capacity(), left()), (109_000, 2 * COMMON, [2 * COMMON; 2]));
        assert_eq!(read(large(), limit, one).await.unwrap_err().0, UNAVAILABLE, "its address has its share");
        let others = read(large(), limit, other).await.unwrap();
        assert_eq!((others.bytes.len(), left()), (109_000, [2 * COMMON, 0]), "which left some to others");
        assert_eq!(read(large(), limit, third).await.unwrap_err().0, UNAVAILABLE, "as long as there is any");
        assert_eq!(read(body(60), limit, one).await.unwrap().bytes.len(), 60_000, "a common one is not kept out");
        drop(ones);
        assert_eq!(read(large(), limit, one).await.unwrap().bytes.len(), 109_000);
        drop(others);
        assert_eq!(left(), [2 * COMMON, 4 * COMMON]);
    }

    #[tokio::test]
    async fn a_small_body_is_read_into_one_piece_and_all_others_take_room() {
        let (none, room, limit) = (Room::new(0, 0), Room::new(4 * FIRST, 0), 1 << 20);
        let [one, other, third] = peers();
        for length in [7000, FIRST] {
            let taken = read(said(length), limit, (&none, one)).await.unwrap();
            assert_eq!((taken.bytes.len(), taken.bytes.capacity()), (length, length));
        }
        // However little more it is, and whether it was said or not.
        for is_said in [true, false] {
            let more = || if is_said { Either::Left(said(FIRST + 1)) } else { Either::Right(body(17)) };
            assert_eq!(read(more(), limit, (&none, one)).await.unwrap_err().0, UNAVAILABLE);
            let ones = read(more(), limit, (&room, one)).await.unwrap();
            assert_eq!((ones.bytes.capacity(), room.common.left()), (2 * FIRST, 2 * FIRST));
            assert_eq!(read(more(), limit, (&room, one)).await.unwrap_err().0, UNAVAILABLE, "it has its share");
            let others = read(more(), limit, (&room, other)).await.unwrap();
            assert_eq!((others.bytes.capacity(), room.common.left()), (2 * FIRST, 0));
            assert_eq!(read(more(), limit, (&room, third)).await.unwrap_err().0, UNAVAILABLE);
        }
        assert_eq!(room.common.left(), 4 * FIRST);
    }

    #[tokio::test]
    async fn who_sends_large_bodies_slowly_leaves_a_quarter_of_the_room() {
        let (room, [slow, other, _]) = (Room::new(COMMON_ROOM, LARGE_ROOM), peers());
        let mut parts = vec![];
        while let Ok(part) = room.take(slow, COMMON) {
            parts.push(part);
        }
        assert_eq!((parts.len(), room.common.left()), (384, COMMON_ROOM / 4));
        assert_eq!(read(body(60), 1 << 20, (&room, slow)).await.unwrap_err().0, UNAVAILABLE);
        assert_eq!(read(body(60), 1 << 20, (&room, other)).await.unwrap().bytes.len(), 60_000);
        // What needs none is read, whoever sends it.
        assert_eq!(read(body(16), 1 << 20, (&room, slow)).await.unwrap().bytes.len(), 16_000);
    }
}
