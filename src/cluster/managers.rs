//! When managers of fields wrote, which whoever writes an object may say himself: the API server keeps every time of
//! RFC 3339, and [`Timestamp`] ends a day before the year 9999 does. One such object of one tenant would keep a whole
//! list or watch of its kind from being read, whatever it is read into: so no answer tells of such a time.

use http::{Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, combinators::MapFrame};
use hyper::body::{Body, Bytes, Frame};
use jiff::Timestamp;

/// The list of managers in the metadata of an object.
const MANAGERS: &[u8] = b"managedFields";
/// When one of them wrote.
const TIME: &[u8] = b"time";

/// An answer of the API server as it arrives, with `null` for such times that can't be read.
pub(super) fn readable<B>(
    answer: Response<B>,
) -> Response<MapFrame<B, impl FnMut(Frame<Bytes>) -> Frame<Bytes> + Send + use<B>>>
where
    B: Body<Data = Bytes>,
{
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    // In protobuf nobody here reads them.
    let mut text = kind.is_some_and(|kind| kind.starts_with("application/json")).then(Text::default);
    answer.map(|body| {
        body.map_frame(move |frame| match &mut text {
            Some(text) => frame.map_data(|bytes| text.pass(&bytes).into()),
            None => frame,
        })
    })
}

/// Where a JSON text stands that has been read so far.
#[derive(Debug, Default)]
struct Text {
    place: Place,
    /// The string that it stands in or has left, as much of it as matters: a name, if a colon follows.
    string: Vec<u8>,
    /// Name of the value that it stands before.
    name: Vec<u8>,
    /// Objects and arrays that are open.
    depth: usize,
    /// How many were when the list of managers began, while it stands in one.
    managers: Option<usize>,
    /// Whether the string is a time of a manager, which is passed on when it is whole.
    held: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum Place {
    #[default]
    Outside,
    String,
    /// In a string, after a backslash.
    Escaped,
}

impl Text {
    /// What is passed on of the next part.
    fn pass(&mut self, mut part: &[u8]) -> Vec<u8> {
        let mut passed = Vec::with_capacity(part.len().saturating_add(self.string.len()));
        while let Some(&next) = part.first() {
            let plain = match self.place {
                Place::String => part.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(part.len()),
                Place::Outside | Place::Escaped => 0,
            };
            let (taken, rest) = part.split_at(plain.max(1));
            part = rest;
            match (self.place, next) {
                (Place::Outside, b'"') => self.begin_string(&mut passed),
                (Place::Outside, _) => {
                    self.step(next);
                    passed.push(next);
                }
                (Place::String, b'"') => self.end_string(&mut passed),
                (place, _) => {
                    let escapes = matches!(place, Place::String) && next == b'\\';
                    self.place = if escapes { Place::Escaped } else { Place::String };
                    self.take(taken, &mut passed);
                }
            }
        }
        passed
    }

    fn step(&mut self, byte: u8) {
        match byte {
            b':' => std::mem::swap(&mut self.name, &mut self.string),
            b',' => self.name.clear(),
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                if byte == b'[' && self.name == MANAGERS {
                    self.managers = self.managers.or(Some(self.depth));
                }
                self.name.clear();
            }
            b'}' | b']' => {
                self.managers = self.managers.filter(|began| *began != self.depth);
                self.depth = self.depth.saturating_sub(1);
                self.name.clear();
            }
            _ => {}
        }
    }

    fn begin_string(&mut self, passed: &mut Vec<u8>) {
        self.place = Place::String;
        self.string.clear();
        self.held = self.managers.is_some() && self.name == TIME;
        if !self.held {
            passed.push(b'"');
        }
    }

    fn take(&mut self, part: &[u8], passed: &mut Vec<u8>) {
        if self.held {
            self.string.extend_from_slice(part);
            return;
        }
        passed.extend_from_slice(part);
        // One more than the name has that is looked for: a longer one is another.
        let room = MANAGERS.len().saturating_add(1).saturating_sub(self.string.len());
        self.string.extend(part.iter().take(room));
    }

    fn end_string(&mut self, passed: &mut Vec<u8>) {
        self.place = Place::Outside;
        if !std::mem::take(&mut self.held) {
            passed.push(b'"');
            return;
        }
        let time = std::str::from_utf8(&self.string).ok();
        if time.is_some_and(|time| time.parse::<Timestamp>().is_ok()) {
            passed.push(b'"');
            passed.extend_from_slice(&self.string);
            passed.push(b'"');
        } else {
            passed.extend_from_slice(b"null");
        }
    }
}

#[cfg(test)]
mod tests;
