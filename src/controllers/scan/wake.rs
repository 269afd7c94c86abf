//! Who is woken by what was counted.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Known;
use crate::hardening::Report;

/// Wakes objects of a kind, by their names, of which something else is counted than before.
pub(in super::super) async fn wake_changed<N: Ord, C: PartialEq>(
    mut known: watch::Receiver<Known>,
    of: fn(&Report) -> &BTreeMap<N, C>,
    wake: impl Fn(&N),
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let mut before: Known = None;
    loop {
        tokio::select! {
            told = known.changed() => if told.is_err() { break },
            () = stopped.cancelled() => return Ok(()),
        }
        let now = known.borrow_and_update().clone();
        for (name, counts) in now.iter().flat_map(|report| of(report)) {
            if before.as_ref().and_then(|report| of(report).get(name)) != Some(counts) {
                wake(name);
            }
        }
        before = now;
    }
    stopped.cancelled().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::hardening::Counted;

    #[tokio::test]
    async fn only_who_is_counted_otherwise_is_woken() {
        let (known, follow) = watch::channel(None);
        let (tell, mut told) = mpsc::unbounded_channel();
        let stopped = CancellationToken::new();
        let wake = move |name: &String| drop(tell.send(name.clone()));
        let waking = tokio::spawn(wake_changed(follow, |report| &report.wide, wake, stopped.clone()));
        let of = |more: u32, compliant: u32| {
            let counted = |more| Counted { more, ..Counted::default() };
            let wide = [("a".to_owned(), counted(0)), ("b".to_owned(), counted(more))].into();
            let mut report = Report { wide, ..Report::default() };
            report.pods.compliant = compliant;
            Some(Arc::new(report))
        };
        known.send_replace(of(0, 0));
        assert_eq!([told.recv().await, told.recv().await], [Some("a".to_owned()), Some("b".to_owned())]);
        // Pods that no policy covers otherwise than before wake nobody.
        known.send_replace(of(0, 1));
        known.send_replace(of(1, 1));
        assert_eq!(told.recv().await.as_deref(), Some("b"));
        stopped.cancel();
        waking.await.unwrap().unwrap();
        assert_eq!(told.recv().await, None);
    }
}
