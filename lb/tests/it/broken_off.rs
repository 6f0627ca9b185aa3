//! What may have been processed is never sent again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tonic::Code;

use crate::support::{ScriptedServer, channel_to, check, reason};

/// Takes a request and breaks off: by a reset with that reason, or by cutting the connection.
async fn breaking(met: Arc<AtomicUsize>, reset: Option<h2::Reason>) -> ScriptedServer {
    ScriptedServer::start(move |_, mut connection| {
        let met = Arc::clone(&met);
        async move {
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                met.fetch_add(1, Ordering::SeqCst);
                match reset {
                    Some(reason) => respond.send_reset(reason),
                    None => return,
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_call_that_broke_off_fails_and_is_not_repeated() {
    for (reset, code) in [
        (None, Code::Unavailable),
        (Some(h2::Reason::INTERNAL_ERROR), Code::Internal),
        (Some(h2::Reason::CANCEL), Code::Cancelled),
        (Some(h2::Reason::ENHANCE_YOUR_CALM), Code::ResourceExhausted),
    ] {
        let met = Arc::new(AtomicUsize::new(0));
        let (one, other) = (
            breaking(Arc::clone(&met), reset).await,
            breaking(Arc::clone(&met), reset).await,
        );
        let channel = channel_to(&[one.addr(), other.addr()]).await;
        let status = check(&channel).await.expect_err("it broke off");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (code, "BROKEN_OFF"),
            "{reset:?}: {status}"
        );
        assert_eq!(met.load(Ordering::SeqCst), 1, "{reset:?}: sent once");
    }
}
