//! The admin port has no login: whoever reaches it may hold it up for a moment, and never the worker.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::stage::{Stage, add};

/// Far more than are answered at once.
const SLOW: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_finish_their_request_use_up_nothing_and_stop_nobody() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().await;
    let before = worker.metric("process_open_fds").await.expect("the worker answers");
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut stream = TcpStream::connect(worker.admin()).await.expect("the system takes the connection");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.expect("it takes a few bytes");
        slow.push(stream);
    }
    // Asked after all of them, it is answered as places become free, although none of them ever lets go.
    let open = loop {
        if let Some(open) = worker.metric("process_open_fds").await {
            break open;
        }
    };
    assert!(open < before + 100.0, "{open} files are open, {before} were");
    stage.outcome(&add("c1", "anna@test", "安娜")).await.assert_succeeded("created");
    drop(slow);
    assert_eq!(stage.settle(worker).await.len(), 0);
}
