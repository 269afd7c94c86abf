//! Labels and annotations that Rampart writes or reads.

/// Says that Rampart made an object; its value is [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
pub const MANAGER: &str = "rampart";
/// Kind of the resource that an object was made for.
pub const OWNER_KIND: &str = "rampart.dev/owner-kind";
/// Name of the resource that an object was made for.
pub const OWNER_NAME: &str = "rampart.dev/owner-name";
/// Namespace of the owner, where the object lives in another one.
pub const OWNER_NAMESPACE: &str = "rampart.dev/owner-namespace";
/// UID of the resource that an object was made for.
pub const OWNER_UID: &str = "rampart.dev/owner-uid";
/// Version number of an API key, on its Secret and on the Jobs of its rotation.
pub const KEY_VERSION: &str = "rampart.dev/key-version";
/// Public id of an API key.
pub const KEY_ID: &str = "rampart.dev/key-id";
/// On a KeyRecord: `true` where the key and its Secrets live on when its ApiKey is deleted.
pub const KEY_RETAINED: &str = "rampart.dev/key-retained";
/// On a KeyRecord: `true` on a tombstone; nobody needs to look at it but by its name.
pub const KEY_ENDED: &str = "rampart.dev/key-ended";
/// When a version of a key was created, RFC 3339; status is rebuilt from it after a restore.
pub const KEY_CREATED_AT: &str = "rampart.dev/key-created-at";
/// Proof that Rampart made a version Secret: an HMAC over what the key is bound to.
pub const KEY_MAC: &str = "rampart.dev/key-mac";
/// On a workload: `true` lets ApiKeys restart it.
pub const RESTART_ON_ROTATION: &str = "rampart.dev/restart-on-rotation";
/// On a suspended CronJob: `true` lets ApiKeys run it as a hook.
pub const KEY_HOOK: &str = "rampart.dev/key-hook";
/// On a Secret of the user's own: `true` lets ApiKeys of its namespace import tokens from it.
pub const IMPORT: &str = "rampart.dev/import";
/// On the same Secret: when the system that issued the token ends it, RFC 3339.
pub const TOKEN_EXPIRES_AT: &str = "rampart.dev/token-expires-at";
/// On a namespace: `allowed` lets RetentionPolicies delete in it.
pub const RETENTION_OPT_IN: &str = "rampart.dev/retention";
/// Value of [`RETENTION_OPT_IN`].
pub const RETENTION_ALLOWED: &str = "allowed";
/// On an object: since when, and by which policy, it is marked for deletion.
pub const RETENTION_MARK: &str = "rampart.dev/retention-mark";
/// On a RetentionReport: when it may go, RFC 3339, as its spec says; for who reads metadata alone.
pub const REPORT_EXPIRES_AT: &str = "rampart.dev/report-expires-at";
/// On a RetentionReport: it has been rolled up, with so many runs before it.
pub const ROLLED_UP: &str = "rampart.dev/rolled-up";
/// On any of our resources: a new value asks for a reconcile now.
pub const RECONCILE_REQUESTED_AT: &str = "rampart.dev/reconcile-requested-at";
/// On Rampart's Lease: how many objects of which kind may be pruned although the prune brake holds.
pub const CONFIRM_PRUNE: &str = "rampart.dev/confirm-prune";
/// What part of Rampart an object is, where owner and kind do not say it.
pub const PART: &str = "rampart.dev/part";
/// Value of [`PART`]: a NetworkPolicy that opens the other end of a connection.
pub const RECIPROCAL: &str = "reciprocal";
/// Value of [`PART`]: a webhook configuration that exists only while some policy needs it.
pub const WEBHOOK: &str = "webhook";
/// Value of [`PART`]: an admission policy, or its binding, that enforces hardening.
pub const FLOOR: &str = "floor";
/// Value of [`PART`]: an admission policy, or its binding, that keeps what is held.
pub const HOLD: &str = "hold";
