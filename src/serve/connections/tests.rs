//! Clients that are slow, silent, or many. Time passes when nothing else is to be done.

use std::net::Ipv4Addr;

use http_body_util::{Empty, Full};
use hyper::body::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::*;
use crate::{
    runtime::metrics::ServerConnections,
    serve::tls::{Leaf, server_config},
};

const SECOND: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_mins(5);
/// Nothing here takes as long.
const FOR_EVER: Duration = Duration::from_hours(1);

/// Connections without a network.
struct Pipes(mpsc::UnboundedReceiver<io::Result<(DuplexStream, SocketAddr)>>);

impl Listener for Pipes {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.0.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }
}

/// A server that answers `/` at once, and `/slow` for each time that it is let.
struct Served {
    pipes: mpsc::UnboundedSender<io::Result<(DuplexStream, SocketAddr)>>,
    lets: Arc<Semaphore>,
    metrics: ServerConnections,
    stopped: CancellationToken,
    serving: JoinHandle<()>,
}

impl Served {
    fn new(server: Server) -> Self {
        let (pipes, accepted) = mpsc::unbounded_channel();
        let (metrics, stopped) = (ConnectionMetrics::default(), CancellationToken::new());
        let (lets, token) = (Arc::new(Semaphore::new(0)), stopped.clone());
        let (of_server, of_answers) = (metrics.of(server.name), Arc::clone(&lets));
        let answer = move |request: Request<Incoming>, _: SocketAddr| {
            let lets = Arc::clone(&of_answers);
            async move {
                if request.uri().path() == "/slow" {
                    lets.acquire().await.unwrap().forget();
                }
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
            }
        };
        let serving = tokio::spawn(async move { server.serve(Pipes(accepted), &metrics, token, answer).await });
        Self { pipes, lets, metrics: of_server, stopped, serving }
    }

    fn connect(&self, from: u8) -> DuplexStream {
        let (ours, theirs) = duplex(4096);
        self.pipes.send(Ok((theirs, (Ipv4Addr::new(192, 0, 2, from), 4711).into()))).unwrap();
        ours
    }

    fn fail(&self, error: io::Error) {
        self.pipes.send(Err(error)).unwrap();
    }

    fn closed(&self, reason: Reason) -> u64 {
        self.metrics.closed(reason.as_str()).get()
    }
}

fn http1(places: u16) -> Server {
    Server { name: "test", protocol: Protocol::Http1(MAX_HEAD), tls: None, places, idle: IDLE }
}

/// Whether a question is answered.
async fn ask(stream: &mut DuplexStream, path: &str) -> bool {
    let question = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut answer = vec![];
    let answered = async {
        stream.write_all(question.as_bytes()).await?;
        while !answer.ends_with(b"ok") {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        io::Result::Ok(())
    };
    timeout(FOR_EVER, answered).await.unwrap().is_ok()
}

/// How many seconds it takes until the server closes a connection.
async fn closes(mut stream: impl AsyncRead + Unpin) -> u64 {
    let began = Instant::now();
    // It may break off.
    let _ = timeout(FOR_EVER, stream.read_to_end(&mut vec![])).await.unwrap();
    began.elapsed().as_secs()
}

/// Lets the server do what it can.
async fn settle() {
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_nothing_makes_room_for_who_comes() {
    let served = Served::new(http1(4));
    let mut asked = vec![];
    for from in 1..=3 {
        let mut stream = served.connect(from);
        assert!(ask(&mut stream, "/").await);
        sleep(3 * SECOND).await;
        asked.push(stream);
    }
    let silent = served.connect(4);
    settle().await;
    assert_eq!(served.metrics.open.get(), 4);

    let mut fifth = served.connect(5);
    assert!(ask(&mut fifth, "/").await);
    assert_eq!(closes(silent).await, 0, "it came last, and never asked");
    assert!(ask(&mut asked[0], "/").await, "and so the second is silent for the longest");
    let mut sixth = served.connect(6);
    assert!(ask(&mut sixth, "/").await);
    assert_eq!(closes(asked.remove(1)).await, 0);
    for stream in asked.iter_mut().chain([&mut fifth, &mut sixth]) {
        assert!(ask(stream, "/").await);
    }
    assert_eq!((served.metrics.open.get(), served.metrics.full.get(), served.closed(Reason::Room)), (4, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn where_all_are_being_answered_who_comes_waits() {
    let served = Served::new(http1(2));
    let [mut one, mut other] = [1, 2].map(|from| served.connect(from));
    let mut asking = pin!(ask(&mut one, "/slow"));
    let mut asking_too = pin!(ask(&mut other, "/slow"));
    for slow in [asking.as_mut(), asking_too.as_mut()] {
        assert!(timeout(SECOND, slow).await.is_err());
    }
    let mut third = served.connect(3);
    let mut waiting = pin!(ask(&mut third, "/"));
    assert!(timeout(10 * SECOND, waiting.as_mut()).await.is_err());
    assert_eq!((served.metrics.open.get(), served.metrics.full.get()), (2, 1));
    served.lets.add_permits(1);
    assert!(timeout(SECOND, waiting).await.unwrap(), "the one that was answered made room");
    assert!(asking.await);
    served.lets.add_permits(1);
    assert!(asking_too.await, "it was left alone");
    assert_eq!((served.metrics.full.get(), served.closed(Reason::Room)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_more_than_half_of_the_places() {
    let served = Served::new(http1(4));
    let mut other = served.connect(2);
    assert!(ask(&mut other, "/").await);
    let [silent, mut busy, mut busy_too] = [1, 1, 1].map(|from| served.connect(from));
    let mut asking = pin!(ask(&mut busy, "/slow"));
    let mut asking_too = pin!(ask(&mut busy_too, "/slow"));
    for slow in [asking.as_mut(), asking_too.as_mut()] {
        assert!(timeout(SECOND, slow).await.is_err());
    }
    assert_eq!(closes(silent).await, 0, "it made room for another one of its address");
    assert_eq!(closes(served.connect(1)).await, 0, "nobody else's makes room for it");
    assert_eq!((served.closed(Reason::Room), served.closed(Reason::Share)), (1, 1));
    let mut third = served.connect(3);
    assert!(ask(&mut other, "/").await && ask(&mut third, "/").await);
    assert_eq!((served.metrics.open.get(), served.metrics.full.get()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_a_byte_at_a_time_ends_its_connection() {
    for has_asked in [false, true] {
        let served = Served::new(http1(4));
        let mut stream = served.connect(1);
        assert!(!has_asked || ask(&mut stream, "/").await);
        // Meanwhile nothing is held against it.
        sleep(60 * SECOND).await;
        let (reads, mut writes) = split(stream);
        let slowly = async {
            writes.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nSlow: ").await.unwrap();
            while writes.write_all(b"a").await.is_ok() {
                sleep(SECOND).await;
            }
            std::future::pending::<u64>().await
        };
        let seconds = tokio::select! {
            seconds = closes(reads) => seconds,
            seconds = slowly => seconds,
        };
        assert!((10..=12).contains(&seconds), "{seconds} s");
        assert_eq!((served.closed(Reason::Head), served.metrics.open.get()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_is_no_larger_than_its_server_takes() {
    let served = Served::new(http1(4));
    for (length, code) in [(MAX_HEAD - 1024, "200"), (2 * MAX_HEAD, "431")] {
        let (mut reads, mut writes) = split(served.connect(1));
        let head = format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nLong: {}\r\n\r\n", "a".repeat(length));
        let mut answer = vec![];
        // Who is refused is not heard to the end.
        let asking = async { tokio::join!(writes.write_all(head.as_bytes()), reads.read_to_end(&mut answer)) };
        let (_, read) = timeout(FOR_EVER, asking).await.unwrap();
        read.unwrap();
        assert!(answer.starts_with(format!("HTTP/1.1 {code} ").as_bytes()), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_nothing_for_long_is_closed() {
    let served = Served::new(http1(4));
    let mut asked = served.connect(1);
    let silent = served.connect(2);
    assert!(ask(&mut asked, "/").await);
    let (silent, idle) = tokio::join!(closes(silent), closes(asked));
    assert!((100..=102).contains(&silent) && (300..=302).contains(&idle), "{silent} and {idle} s");
    assert_eq!((served.closed(Reason::Idle), served.metrics.open.get()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_http2_that_only_answers_pings_is_idle() {
    let served = Served::new(Server { protocol: Protocol::Http2, ..http1(4) });
    let io = TokioIo::new(served.connect(1));
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let began = Instant::now();
    let question = Request::get("http://test/").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(send.send_request(question).await.unwrap().status(), 200);
    let _ = timeout(FOR_EVER, connection).await.unwrap().unwrap();
    let seconds = began.elapsed().as_secs();
    settle().await;
    assert!((300..=302).contains(&seconds), "{seconds} s");
    assert_eq!((served.closed(Reason::Idle), served.metrics.open.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_tls_handshake_that_does_not_end_ends_its_connection() {
    let served = Served::new(Server { tls: Some(server_config(Leaf::default()).unwrap()), ..http1(4) });
    let silent = served.connect(1);
    // The beginning of a ClientHello of 512 bytes.
    let mut begun = served.connect(2);
    begun.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    let (silent, begun) = tokio::join!(closes(silent), closes(begun));
    assert_eq!((silent, begun), (10, 10));
    assert_eq!((served.closed(Reason::Handshake), served.metrics.open.get()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn where_no_descriptor_is_left_it_is_tried_again_and_not_at_once() {
    let served = Served::new(http1(4));
    let began = Instant::now();
    served.fail(io::ErrorKind::ConnectionAborted.into());
    let mut first = served.connect(1);
    assert!(ask(&mut first, "/").await);
    assert_eq!(began.elapsed().as_secs(), 0, "who is gone holds up nobody");
    for _ in 0..3 {
        // EMFILE
        served.fail(io::Error::from_raw_os_error(24));
    }
    let mut second = served.connect(2);
    assert!(ask(&mut second, "/").await);
    assert_eq!(began.elapsed().as_secs(), 3);
    assert!(ask(&mut first, "/").await);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_is_under_way_is_answered_and_nobody_is_waited_for_for_long() {
    let served = Served::new(http1(8));
    let [mut busy, mut idle, mut slow, mut stuck] = [1, 2, 3, 4].map(|from| served.connect(from));
    assert!(ask(&mut idle, "/").await);
    slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut asking = pin!(ask(&mut busy, "/slow"));
    let mut in_vain = pin!(ask(&mut stuck, "/slow"));
    assert!(timeout(SECOND, asking.as_mut()).await.is_err());
    assert!(timeout(SECOND, in_vain.as_mut()).await.is_err());

    let began = Instant::now();
    served.stopped.cancel();
    assert_eq!(closes(idle).await, 0);
    served.lets.add_permits(1);
    assert!(asking.await, "it was under way");
    timeout(FOR_EVER, served.serving).await.unwrap().unwrap();
    assert_eq!(began.elapsed().as_secs(), 5);
    assert!(!in_vain.await);
    assert_eq!(served.metrics.open.get(), 0);
}
