//! A list in protobuf as it arrives: `k8s\0`, a `runtime.Unknown`, and in its `raw` the list, object after object
//! (KEP-5116 streams them in this order, and a client that does not care for it gets the same).

use std::io::{Error, ErrorKind, Result};

use futures::{AsyncRead, AsyncReadExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use prost::Message;

use super::message::{ListMeta, Object};

const MAGIC: [u8; 4] = *b"k8s\0";
/// Field of `runtime.Unknown`: what it holds.
const RAW: u64 = 2;
/// Fields of every list.
const METADATA: u64 = 1;
const ITEMS: u64 = 2;

/// A list that has begun to arrive.
pub(super) struct Page<R> {
    body: Arriving<R>,
    /// Where the list ends.
    end: u64,
    metadata: Option<meta::ListMeta>,
    /// The first part, where that is another: its field and length.
    begun: Option<(u64, u64)>,
}

impl<R: AsyncRead + Unpin> Page<R> {
    /// Reads on until what the list says of itself, which comes first.
    ///
    /// # Errors
    /// When it can't be read, ends early, or is no list.
    pub(super) async fn open(body: R) -> Result<Self> {
        let mut body = Arriving { body, at: 0 };
        if body.exactly(4).await? != MAGIC {
            return Err(not_a_list("it does not begin as one"));
        }
        let length = loop {
            match body.field().await? {
                Some((RAW, length)) => break length,
                Some((_, length)) => drop(body.exactly(length).await?),
                None => return Err(not_a_list("it holds nothing")),
            }
        };
        let end = body.at.saturating_add(length);
        let mut page = Self { body, end, metadata: None, begun: None };
        match page.part().await? {
            Some((METADATA, length)) => page.read_metadata(length).await?,
            other => page.begun = other,
        }
        Ok(page)
    }

    /// What it says of itself; `None` where that does not come first.
    pub(super) fn metadata(&self) -> Option<&meta::ListMeta> {
        self.metadata.as_ref()
    }

    /// Tells of each object, and returns what the list says of itself.
    ///
    /// # Errors
    /// As [`Page::open`].
    pub(super) async fn tell(mut self, each: &mut impl FnMut(meta::ObjectMeta)) -> Result<meta::ListMeta> {
        let mut part = match self.begun.take() {
            None => self.part().await?,
            begun => begun,
        };
        while let Some((field, length)) = part {
            match field {
                METADATA => self.read_metadata(length).await?,
                ITEMS => each(Object::decode(self.body.exactly(length).await?.as_slice())?.into()),
                _ => drop(self.body.exactly(length).await?),
            }
            part = self.part().await?;
        }
        // To the end, so that the connection can be used again.
        while let Some((_, length)) = self.body.field().await? {
            self.body.exactly(length).await?;
        }
        self.metadata.ok_or_else(|| not_a_list("it has no metadata"))
    }

    /// Field and length of the next part of the list; `None` at its end.
    async fn part(&mut self) -> Result<Option<(u64, u64)>> {
        if self.body.at >= self.end {
            return Ok(None);
        }
        let (field, length) = self.body.field().await?.ok_or(ErrorKind::UnexpectedEof)?;
        if length > self.end.saturating_sub(self.body.at) {
            return Err(not_a_list("a part of it is longer than the whole"));
        }
        Ok(Some((field, length)))
    }

    async fn read_metadata(&mut self, length: u64) -> Result<()> {
        let bytes = self.body.exactly(length).await?;
        self.metadata = Some(ListMeta::decode(bytes.as_slice())?.into());
        Ok(())
    }
}

fn not_a_list(why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("no list in protobuf: {why}"))
}

struct Arriving<R> {
    body: R,
    /// Bytes that were read.
    at: u64,
}

impl<R: AsyncRead + Unpin> Arriving<R> {
    /// Number and length of the next field; `None` at the end.
    async fn field(&mut self) -> Result<Option<(u64, u64)>> {
        let Some(tag) = self.number().await? else { return Ok(None) };
        if tag & 7 != 2 {
            return Err(not_a_list("a field has no length"));
        }
        let length = self.number().await?.ok_or(ErrorKind::UnexpectedEof)?;
        Ok(Some((tag >> 3, length)))
    }

    /// A varint; `None` at the end.
    async fn number(&mut self) -> Result<Option<u64>> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let mut byte = [0];
            if self.body.read(&mut byte).await? == 0 {
                return if shift == 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            let [byte] = byte;
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(Some(number));
            }
        }
        Err(not_a_list("a number is too long"))
    }

    /// As many bytes, and not less; room is made for them as they come.
    async fn exactly(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![];
        let read = (&mut self.body).take(length).read_to_end(&mut bytes).await?;
        self.at += length;
        if read as u64 == length { Ok(bytes) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::{TryStreamExt as _, executor::block_on, stream};
    use jiff::Timestamp;
    use prost::encoding::{WireType, encode_key, encode_varint};

    use super::*;
    use crate::cluster::metadata_list::message::{ObjectMeta, OwnerReference, Time};

    fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![];
        encode_key(number, WireType::LengthDelimited, &mut field);
        encode_varint(bytes.len() as u64, &mut field);
        [field, bytes.to_vec()].concat()
    }

    fn object(name: &str) -> Object {
        let owner = OwnerReference { kind: "Job".into(), controller: Some(true), ..OwnerReference::default() };
        let metadata = ObjectMeta {
            name: name.into(),
            uid: format!("uid-{name}"),
            creation_timestamp: Some(Time { seconds: 1_800_000_000, nanos: 0 }),
            deletion_timestamp: Some(Time { seconds: 0, nanos: 0 }),
            labels: BTreeMap::from([("a".into(), "x".repeat(200))]),
            owner_references: vec![owner],
            ..ObjectMeta::default()
        };
        Object { metadata: Some(metadata) }
    }

    /// A page, up to the end of the list, and whole.
    fn page() -> (usize, Vec<u8>) {
        let metadata = ListMeta { resource_version: "7".into(), r#continue: "more".into() };
        let unheard_of = field(5, b"shards");
        let objects = ["a", "bé"].map(|name| field(2, &object(name).encode_to_vec()));
        let list = [field(1, &metadata.encode_to_vec()), unheard_of, objects.concat()].concat();
        let list = [MAGIC.to_vec(), field(1, b"kind"), field(2, &list)].concat();
        (list.len(), [list, field(3, b""), field(4, b"")].concat())
    }

    fn read(bytes: &[u8], size: usize) -> (Result<meta::ListMeta>, Vec<meta::ObjectMeta>) {
        let chunks: Vec<Result<Vec<u8>>> = bytes.chunks(size).map(|chunk| Ok(chunk.to_vec())).collect();
        let mut found = vec![];
        let body = stream::iter(chunks).into_async_read();
        let list = async { Page::open(body).await?.tell(&mut |object| found.push(object)).await };
        (block_on(list), found)
    }

    #[test]
    fn it_is_read_in_pieces_of_any_size() {
        for size in [1, 2, 3, 7, 1000] {
            let (list, found) = read(&page().1, size);
            assert_eq!(list.unwrap().continue_.as_deref(), Some("more"));
            let [a, b] = found.try_into().unwrap();
            assert_eq!((a.name.as_deref(), b.name.as_deref()), (Some("a"), Some("bé")));
            assert_eq!(a.creation_timestamp.unwrap().0, Timestamp::from_second(1_800_000_000).unwrap());
            assert_eq!(
                (a.namespace, a.deletion_timestamp, a.annotations),
                (None, None, None),
                "Go writes what is not there"
            );
            assert_eq!(a.labels.unwrap()["a"].len(), 200);
            assert_eq!(a.owner_references.unwrap()[0].controller, Some(true));
        }
    }

    #[test]
    fn what_ends_early_is_no_list() {
        let (whole, page) = page();
        for end in 0..whole {
            assert!(read(&page[..end], 5).0.is_err(), "{end}");
        }
        assert!(read(&page[..whole], 5).0.is_ok());
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        let of = |raw: &[u8]| read(&[MAGIC.to_vec(), field(2, raw)].concat(), 5).0.map_err(|error| error.kind());
        assert_eq!(read(b"{\"items\": []}", 5).0.unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(of(b""), Err(ErrorKind::InvalidData), "no metadata");
        assert_eq!(of(&[0x0a, 0x05, 0]), Err(ErrorKind::InvalidData), "longer than the whole");
        assert_eq!(of(&[0x08, 0x05]), Err(ErrorKind::InvalidData), "a number where a list has none");
        assert_eq!(of(&[0x80; 11]), Err(ErrorKind::InvalidData), "a number without an end");
        assert!(of(&field(2, &[0xff; 3])).is_err(), "no object");
    }
}
