//! Verification of a presented key: from a request to a verdict, with the time as an argument.
//!
//! The order is fixed: one credential, its form, its digest, the record (suspended, expired, ended), the audience, the
//! permission, the customer, and only then the rates, all windows or none. What is refused before costs no quota. Deny
//! is the zero value: whoever stops half-way has refused.

mod answer;
mod credential;
mod entry;
mod failures;
mod index;
mod limits;
mod rights;
mod route;
mod usage;
mod verdict;
mod verifier;

pub use answer::{Answer, Form, Header, REMOVED, REMOVED_LIST, answer};
pub use credential::{Credential, Credentials};
pub use entry::{Access, KeyId};
pub use failures::{Failures, Standing};
pub use index::{Changes, UnusableRecord};
pub use limits::{Cells, Rate, Rates, WINDOWS, Window, Windows};
pub use route::{Request, Route};
pub use usage::Used;
pub use verdict::{Admission, Refusal, Verdict};
pub use verifier::Verifier;
