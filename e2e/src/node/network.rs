//! The addresses of a node: its own, those of its pods, and some outside of the cluster, which are on
//! this machine all the same. No packet leaves it.

use std::{fs, net::Ipv4Addr, path::Path};

use anyhow::Result;

use super::machine::{forward, run};

/// Address of the node.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Addresses of its pods.
pub const PODS: &str = "10.244.0.0/24";
/// Addresses of Services.
pub const SERVICES: &str = "10.96.0.0/16";
/// Addresses outside of the cluster, of the range for benchmarks (RFC 2544).
pub const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 10), Ipv4Addr::new(198, 19, 0, 10)];

/// The network namespace of what is outside.
pub(super) const OUTSIDE_NAMESPACE: &str = "rampart-outside";
/// The interface that holds the node's address.
const NODE_LINK: &str = "rampart-node";
/// The way outside, and its address on the side of the node.
const OUTSIDE_LINK: &str = "rampart-out";
const OUTSIDE_GATEWAY: &str = "198.18.0.1";

/// Makes the interfaces.
///
/// # Errors
/// When the kernel refuses one.
pub(super) fn create(dir: &Path) -> Result<()> {
    forward(dir)?;
    let own = format!("{ADDRESS}/32");
    run("ip", &["link", "add", NODE_LINK, "type", "bridge"])?;
    run("ip", &["addr", "add", &own, "dev", NODE_LINK])?;
    run("ip", &["link", "set", NODE_LINK, "up"])?;

    let (inner, gateway) = (OUTSIDE_NAMESPACE, format!("{OUTSIDE_GATEWAY}/32"));
    run("ip", &["netns", "add", inner])?;
    run("ip", &["link", "add", OUTSIDE_LINK, "type", "veth", "peer", "name", "eth0", "netns", inner])?;
    run("ip", &["addr", "add", &gateway, "dev", OUTSIDE_LINK])?;
    run("ip", &["link", "set", OUTSIDE_LINK, "up"])?;
    run("ip", &["-n", inner, "link", "set", "lo", "up"])?;
    run("ip", &["-n", inner, "link", "set", "eth0", "up"])?;
    for address in OUTSIDE {
        run("ip", &["-n", inner, "addr", "add", &format!("{address}/32"), "dev", "eth0"])?;
        run("ip", &["route", "add", &format!("{address}/32"), "dev", OUTSIDE_LINK])?;
    }
    run("ip", &["-n", inner, "route", "add", OUTSIDE_GATEWAY, "dev", "eth0"])?;
    run("ip", &["-n", inner, "route", "add", "default", "via", OUTSIDE_GATEWAY])?;
    forget_connections();
    Ok(())
}

/// Removes them.
pub(super) fn remove() {
    let _ = run("ip", &["netns", "del", OUTSIDE_NAMESPACE]);
    let _ = run("ip", &["link", "del", OUTSIDE_LINK]);
    let _ = run("ip", &["link", "del", NODE_LINK]);
    forget_connections();
}

/// An established connection outlives the policy that allowed it, even the pods: a later pod of the same address must
/// not find one open.
fn forget_connections() {
    let _ = run("conntrack", &["-D", "-s", PODS]);
    let _ = run("conntrack", &["-D", "-d", PODS]);
}

/// Names of the interfaces that begin so.
///
/// # Errors
/// When they can't be listed.
pub(super) fn interfaces(prefix: &str) -> Result<Vec<String>> {
    let entries = fs::read_dir("/sys/class/net")?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}
