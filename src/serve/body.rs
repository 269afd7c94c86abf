//! Reading a body with a limit.

use axum::body::{Body, Bytes, HttpBody as _};
use http::StatusCode;
use http_body_util::BodyExt as _;

/// Of a body that is too large so much more is read and thrown away, before the answer: a client that is
/// still writing when the connection closes sees a broken pipe instead of the answer.
const DRAINED: usize = 48 << 20;

/// Few bodies are larger.
const COMMON: usize = 64 << 10;

/// Why a body was not taken: the answer's status and text.
pub(super) type Refusal = (StatusCode, String);

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// When it is larger, or the connection breaks.
pub(super) async fn read(mut body: Body, limit: usize) -> Result<Bytes, Refusal> {
    // As much as the client says, up to what is common: it may say more than it sends.
    let said = usize::try_from(body.size_hint().lower()).unwrap_or_default();
    let mut taken = Vec::with_capacity(said.min(COMMON));
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, format!("the body can't be read: {error}\n")))?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= limit {
            taken.extend_from_slice(&data);
        } else {
            taken = Vec::new();
            if length > limit.saturating_add(DRAINED) {
                break;
            }
        }
    }
    if length > limit {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {} MiB\n", limit >> 20)));
    }
    Ok(taken.into())
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};

    use super::*;

    fn body(chunks: usize) -> Body {
        let chunks = stream::iter(0..chunks).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[b'a'; 1000])));
        Body::from_stream(chunks)
    }

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read_and_a_larger_one_is_refused() {
        assert_eq!(read(body(3), 3000).await.unwrap().len(), 3000);
        assert_eq!(read(body(4), 3000).await.unwrap_err().0, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(read(Body::empty(), 3000).await.unwrap().len(), 0);
    }
}
