//! [`unless`]: a wait with an end.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

/// Waits for `wanted`, unless `end` comes first.
pub(crate) async fn unless<T>(wanted: impl Future<Output = T>, end: impl Future<Output = ()>) -> Option<T> {
    let (mut wanted, mut end) = (pin!(wanted), pin!(end));
    // What is wanted beats the end.
    poll_fn(|cx| match wanted.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}
