use std::path::Path;

use jiff::Timestamp;

use super::*;
use crate::broker::book::state::State;
use crate::broker::client::{Attached, Clients};
use crate::broker::codec::{Connect, SubscribeOptions, Version};
use crate::broker::router::Router;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn open(directory: &Path) -> (Arc<Book>, State) {
    let (book, state) = Book::open(directory, |damage| panic!("{damage:?}")).unwrap();
    (Arc::new(book), state)
}

fn begin(directory: &Path) -> (Clients, Arc<Router>) {
    let (clients, router) = (Clients::default(), Router::new());
    let (book, state) = open(directory);
    router.restore(&state);
    clients.restore(book, &state, &router, now());
    (clients, router)
}

fn attach(clients: &Clients, router: &Router, id: &str) -> Attached {
    let connect = Connect {
        version: Version::V4,
        client_id: id.to_owned(),
        clean: false,
        keep_alive: 0,
        will: None,
        will_delay: 0,
        session_expiry: 0,
        receive_maximum: u16::MAX,
        max_packet: None,
    };
    clients.attach(&connect, router, now())
}

fn message(payload: &str) -> Message {
    Message { topic: "t".into(), payload: payload.to_owned().into(), qos: 1, ..Message::default() }
}

/// A router with a kept session that subscribed to `t`.
async fn subscribed(directory: &Path) -> (Clients, Arc<Router>, Arc<Client>) {
    let (clients, router) = begin(directory);
    let Attached { client, mut records, .. } = attach(&clients, &router, "s");
    assert!(client.is_kept());
    let options = SubscribeOptions { qos: 1, ..SubscribeOptions::default() };
    router.subscribe(&client, "t", options);
    records.push(Record::Subscribed(Arc::clone(client.key().text()), "t".into(), options));
    clients.book().unwrap().write(records).await.unwrap();
    (clients, router, client)
}

// A message for a kept session is in the book before it is settled, and not in the session before.
#[tokio::test]
async fn a_message_that_somebody_waits_for_is_settled_when_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (clients, router, client) = subscribed(directory.path()).await;
    for n in 0..10 {
        let routing = router.route(message(&n.to_string()), "p", clients.book(), None).unwrap();
        assert!(routing.settle(&CancellationToken::new()).await);
        assert_eq!(client.session.lock().queued(), n + 1);
    }
    assert!(router.route(Message { qos: 0, ..message("volatile") }, "p", clients.book(), None).is_none());
    clients.book().unwrap().close();
    let (clients, router) = begin(directory.path());
    assert_eq!((clients.len(), router.subscriptions(), clients.backlog()), (1, 1, (10, 0)));
    let again = attach(&clients, &router, "s");
    assert!(again.session_present && again.client.key() == client.key());
    assert!(!attach(&clients, &router, "other").session_present);
}

// DUR-5: while the book cannot be written nothing is settled; then everything is, once. Who goes away meanwhile leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_book_that_cannot_be_written_holds_the_message_back() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("kept");
    drop(subscribed(&directory).await);
    let (clients, router) = begin(&directory);
    let client = attach(&clients, &router, "s").client;
    // No file is open yet, and none can be.
    std::fs::rename(&directory, parent.path().join("away")).unwrap();
    std::fs::write(&directory, "in the way").unwrap();
    let gone = CancellationToken::new();
    let given_up = router.route(message("given up"), "p", clients.book(), None).unwrap();
    let waits = router.route(message("waits"), "p", clients.book(), None).unwrap();
    gone.cancel();
    assert!(!given_up.settle(&gone).await);
    let settled = tokio::spawn(async move { waits.settle(&CancellationToken::new()).await });
    assert_eq!(client.session.lock().queued(), 0);
    std::fs::remove_file(&directory).unwrap();
    std::fs::rename(parent.path().join("away"), &directory).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap().unwrap());
    assert_eq!((client.session.lock().queued(), clients.queued_bytes()), (1, message("waits").cost()));
}

#[tokio::test]
async fn sessions_that_ended_are_not_taken_up() {
    let directory = tempfile::tempdir().unwrap();
    let (clients, router, client) = subscribed(directory.path()).await;
    let number = attach(&clients, &router, "s").number;
    clients.detach(&client, number, &router, now());
    clients.book().unwrap().close();
    let (book, state) = open(directory.path());
    let (late, router) = (Clients::default(), Router::new());
    let day = jiff::SignedDuration::from_secs(24 * 3600 + 1);
    late.restore(book, &state, &router, now().checked_add(day).unwrap());
    assert_eq!((late.len(), router.subscriptions()), (0, 0));
    assert!(!late.knows(client.key()), "its packets may be forgotten");
}
