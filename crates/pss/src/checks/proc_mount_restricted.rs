//! At restricted an unmasked `/proc` is refused in a user namespace too.

use super::proc_mount;
use crate::{Level, check::Check};

pub(crate) static CHECK: Check = Check {
    id: "procMount_restricted",
    level: Level::Restricted,
    overrides: &["procMount"],
    since: &[(35, proc_mount::decide)],
    exempt: None,
    values: None,
};
