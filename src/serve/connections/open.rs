//! Who is connected, and who has to go: whoever is late, and whoever asks nothing while another needs the place.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout},
};

use crate::runtime::metrics::ServerConnections;

/// How long a connection may be open that has asked nothing yet: more than the 90 seconds for which clients in Go, and
/// so the API server, keep one that they opened and did not need. They do not ask again what they asked into a
/// connection that was just closed.
pub(in crate::serve) const UNUSED: Duration = Duration::from_secs(100);
/// From the first byte of a head to its end, over HTTP/1.1.
const HEAD: Duration = Duration::from_secs(10);
/// How long what is under way may take once its connection is to end.
const DRAIN: Duration = Duration::from_secs(5);
/// Somebody may have become idle meanwhile.
const RETRY: Duration = Duration::from_millis(100);

/// Why a connection was ended that its client would have kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// TLS was not agreed upon in time.
    Handshake,
    /// A head was not whole in time.
    Head,
    /// Nothing was asked for too long.
    Idle,
    /// Another one needed its place.
    Room,
    /// Its address has as many as one may have, all busy.
    Share,
}

impl Reason {
    const ALL: [Self; 5] = [Self::Handshake, Self::Head, Self::Idle, Self::Room, Self::Share];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Room => "room",
            Self::Share => "share",
        }
    }

    /// Who waits for the place of one that asks nothing does not wait for its farewell.
    const fn grace(self) -> Duration {
        match self {
            Self::Idle => DRAIN,
            Self::Handshake | Self::Head | Self::Room | Self::Share => Duration::ZERO,
        }
    }
}

/// What a connection does. Every request passes here, and so there is no lock: it is looked at now and then.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Whether bytes came since a request last began or ended: they belong to a head that is not whole yet.
    heard: AtomicBool,
}

impl Activity {
    pub(super) fn hear(&self) {
        self.heard.store(true, Relaxed);
    }

    fn is_busy(&self) -> bool {
        self.begun.load(Relaxed) != self.ended.load(Relaxed)
    }
}

/// A request, for as long as it is being answered.
pub(super) struct UnderWay(Arc<Activity>);

impl UnderWay {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Relaxed);
        activity.heard.store(false, Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.heard.store(false, Relaxed);
        self.0.ended.fetch_add(1, Relaxed);
    }
}

/// An open connection, as it was when it was last looked at.
struct Connection {
    peer: IpAddr,
    activity: Arc<Activity>,
    /// Requests that had begun.
    begun: u64,
    /// Since when it asks nothing.
    since: Instant,
    /// Since when a head is not whole.
    head: Option<Instant>,
    /// Where it hears that it is to end, and how long it may take for that; none once it was told.
    end: Option<oneshot::Sender<Duration>>,
}

impl Connection {
    /// Looks at what it did since the last time. Whether it is being answered.
    fn look(&mut self, now: Instant) -> bool {
        let (begun, is_busy) = (self.activity.begun.load(Relaxed), self.activity.is_busy());
        if is_busy || begun != self.begun {
            (self.begun, self.since, self.head) = (begun, now, None);
        }
        is_busy
    }

    /// Why it is to end now.
    fn late(&mut self, now: Instant, idle: Duration) -> Option<Reason> {
        if self.look(now) {
            return None;
        }
        self.head = self.activity.heard.load(Relaxed).then(|| self.head.unwrap_or(now));
        if self.head.is_some_and(|since| now.duration_since(since) >= HEAD) {
            return Some(Reason::Head);
        }
        let longest = if self.begun == 0 { UNUSED } else { idle };
        (now.duration_since(self.since) >= longest).then_some(Reason::Idle)
    }
}

/// The open connections, by the order in which they came.
#[derive(Default)]
struct Table {
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

/// The open connections of a server, and the places that there are for them.
pub(super) struct Open {
    places: Arc<Semaphore>,
    bound: u16,
    idle: Duration,
    table: Mutex<Table>,
    metrics: ServerConnections,
}

impl Open {
    pub(super) fn new(bound: u16, idle: Duration, metrics: ServerConnections) -> Self {
        // From the beginning: of a counter that is there only once it counts, the first one is missed.
        for reason in Reason::ALL {
            let _ = metrics.closed(reason.as_str());
        }
        Self { places: Arc::new(Semaphore::new(bound.into())), bound, idle, table: Mutex::default(), metrics }
    }

    /// A place for one more connection, as soon as there is one; none for an address that has half of all, and is busy
    /// with each.
    pub(super) async fn place(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let peer = peer.to_canonical();
        let has_share = self.count(peer) >= usize::from(self.bound.div_ceil(2));
        if has_share && !self.end_one(Some(peer)) {
            self.metrics.count_closed(Reason::Share.as_str());
            return None;
        }
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(self.enter(peer, permit));
        }
        self.metrics.full.inc();
        // One that was just ended leaves its place.
        let mut is_promised = has_share;
        loop {
            if !is_promised {
                self.end_one(None);
            }
            is_promised = false;
            if let Ok(Ok(permit)) = timeout(RETRY, Arc::clone(&self.places).acquire_owned()).await {
                return Some(self.enter(peer, permit));
            }
        }
    }

    fn enter(self: &Arc<Self>, peer: IpAddr, permit: OwnedSemaphorePermit) -> Place {
        let (end, told) = oneshot::channel();
        let activity = Arc::<Activity>::default();
        let connection = Connection {
            peer,
            activity: Arc::clone(&activity),
            begun: 0,
            since: Instant::now(),
            head: None,
            end: Some(end),
        };
        let mut table = self.table.lock();
        let id = table.next;
        table.next += 1;
        table.connections.insert(id, connection);
        drop(table);
        self.metrics.open.inc();
        Place { open: Arc::clone(self), id, activity, told, _permit: permit }
    }

    fn count(&self, peer: IpAddr) -> usize {
        self.table.lock().connections.values().filter(|it| it.peer == peer).count()
    }

    /// Ends one that asks nothing, of an address or of all: one that never asked before one that did, and of those
    /// whichever has been silent for the longest. Whether there was one.
    fn end_one(&self, of: Option<IpAddr>) -> bool {
        let now = Instant::now();
        let mut table = self.table.lock();
        let candidates = table.connections.values_mut().filter(|it| it.end.is_some());
        let candidates = candidates.filter(|it| of.is_none_or(|peer| it.peer == peer));
        let idle = candidates.filter_map(|it| if it.look(now) { None } else { Some(it) });
        let longest = idle.min_by_key(|it| (it.begun > 0, it.since));
        longest.is_some_and(|connection| {
            self.end(connection, Reason::Room);
            true
        })
    }

    /// Ends those that are late.
    pub(super) fn end_late(&self) {
        let now = Instant::now();
        for connection in self.table.lock().connections.values_mut() {
            if let Some(reason) = connection.late(now, self.idle) {
                self.end(connection, reason);
            }
        }
    }

    fn end(&self, connection: &mut Connection, reason: Reason) {
        if let Some(end) = connection.end.take() {
            self.metrics.count_closed(reason.as_str());
            // It may just have ended by itself.
            let _ = end.send(reason.grace());
        }
    }

    /// Ends all, each after what it has under way, and waits for them.
    pub(super) async fn end_all(&self) {
        for connection in self.table.lock().connections.values_mut() {
            if let Some(end) = connection.end.take() {
                let _ = end.send(DRAIN);
            }
        }
        let _ = self.places.acquire_many(self.bound.into()).await;
    }
}

/// A connection's place, which is another one's once it is dropped.
pub(super) struct Place {
    open: Arc<Open>,
    id: u64,
    pub(super) activity: Arc<Activity>,
    /// Hears when the connection is to end, and how long it may take for that.
    pub(super) told: oneshot::Receiver<Duration>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// How long a connection may take to end that was told so: a request that came meanwhile is answered.
    pub(super) fn grace(&self, told: Duration) -> Duration {
        if self.activity.is_busy() { DRAIN } else { told }
    }

    pub(super) fn count_closed(&self, reason: Reason) {
        self.open.metrics.count_closed(reason.as_str());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.table.lock().connections.remove(&self.id);
        self.open.metrics.open.dec();
    }
}
