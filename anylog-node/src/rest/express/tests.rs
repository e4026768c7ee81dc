use rig::*;

use tokio::io::AsyncWriteExt;

use super::*;

mod alike;
mod rig;

#[tokio::test]
async fn a_connection_is_kept_for_many_requests() {
    let rig = Rig::new(ALWAYS);
    let mut client = rig.client(&row(0)).await;
    assert!(client.answer().await.is_success());
    for number in 1..300 {
        client.send(&row(number)).await;
        let answer = client.answer().await;
        assert!(answer.is_success() && !answer.closes(), "{answer:?}");
    }
    let expected: Vec<String> = (0..300).map(row_text).collect();
    assert_eq!(*rig.store.rows.lock(), expected);
    client.stream.shutdown().await.unwrap();
    client.ends().await;
}

// DUR-1: nothing is answered before it is stored.
#[tokio::test]
async fn requests_sent_at_once_are_served_in_order_and_one_after_the_other() {
    let rig = Rig::new(0);
    let bad = put(&["dbms: d", "table: t", "mode: streaming"], "{\"v\": \"bad\"}{\"v\": 3}");
    let mut client = rig.client(&[row(1), row(2), bad, row(4)].concat()).await;
    for number in 1..=4 {
        in_time(rig.store.begun.notified()).await;
        assert!(rig.store.rows.lock().len() < number, "one after the other");
        let early = client.stream.try_read_buf(&mut client.read);
        assert!(early.is_err() && client.read.is_empty(), "answered before it is stored");
        rig.store.permits.add_permits(1);
        let answer = client.answer().await;
        assert_eq!(answer.is_success(), number != 3, "{answer:?}");
        assert_eq!(answer.body.contains("Partial"), number == 3, "{answer:?}");
    }
    assert_eq!(rig.store.rows.lock().len(), 4);
    assert_eq!(rig.store.permits.available_permits(), 0);
}

#[tokio::test]
async fn a_request_may_come_in_pieces() {
    let rig = Rig::new(ALWAYS);
    let request = row(7);
    let mut client = rig.client(&request[..4]).await;
    let mut sent = 4;
    for end in (4..request.len()).chain([request.len()]).cycle().take(3 * request.len()) {
        if end < sent {
            // The next request begins.
            sent = 0;
        }
        client.send(&request[sent..end]).await;
        tokio::task::yield_now().await;
        sent = end;
        if end == request.len() {
            assert!(client.answer().await.is_success());
            sent = request.len();
        }
    }
}

#[tokio::test]
async fn all_other_requests_are_handed_over_in_their_order() {
    let rig = Rig::new(ALWAYS);
    let file = put(&["dbms: d", "table: t"], "{\"v\": 2}");
    let chunked = b"PUT / HTTP/1.1\r\nHost: node\r\ndbms: d\r\ntable: t\r\nmode: streaming\r\n\
        Transfer-Encoding: chunked\r\n\r\n8\r\n{\"v\": 3}\r\n0\r\n\r\n"
        .to_vec();
    let get = b"GET /api/status HTTP/1.1\r\nHost: node\r\n\r\n".to_vec();
    let wrong = put(&["dbms: d", "table: t", "mode: streaming"], "{\"v\": ");
    let long = put(&["dbms: d", "table: t", "mode: streaming"], &format!("{{\"v\": \"{}\"}}", "x".repeat(99_999)));
    for (other, status, words) in
        [(file, 200, "0123"), (chunked, 200, "Success"), (get, 200, "ok"), (wrong, 400, "JSON"), (long, 200, "Success")]
    {
        // All at once, each after the answer to the one before, and as the first.
        let mut client = rig.client(&[row(1), other.clone(), row(4)].concat()).await;
        assert!(client.answer().await.is_success());
        let answer = client.answer().await;
        assert!(answer.status == status && answer.body.contains(words), "{answer:?}");
        assert!(client.answer().await.is_success());
        let mut client = rig.client(&row(1)).await;
        assert!(client.answer().await.is_success());
        for _ in 0..2 {
            client.send(&other).await;
            let answer = client.answer().await;
            assert!(answer.status == status && answer.body.contains(words), "{answer:?}");
            client.send(&row(4)).await;
            assert!(client.answer().await.is_success());
        }
        let mut client = rig.client(&other).await;
        assert_eq!(client.answer().await.status, status);
    }
}

#[tokio::test]
async fn a_request_is_handed_over_after_the_answer_to_the_one_before() {
    let rig = Rig::new(0);
    let mut client = rig.client(&[row(1), b"GET /api/status HTTP/1.1\r\n\r\n".to_vec()].concat()).await;
    in_time(rig.store.begun.notified()).await;
    rig.store.permits.add_permits(1);
    assert!(client.answer().await.is_success());
    assert_eq!(client.answer().await.body, r#"{"status": "ok"}"#);
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_reads_its_answers() {
    let rig = Rig::new(0);
    let mut client = rig.client(&[row(1), row(2)].concat()).await;
    client.stream.shutdown().await.unwrap();
    in_time(rig.store.begun.notified()).await;
    rig.store.permits.add_permits(2);
    assert!(client.answer().await.is_success());
    assert!(client.answer().await.is_success());
    client.ends().await;
}

#[tokio::test]
async fn a_client_that_closes_in_the_middle_of_a_request_is_told() {
    let rig = Rig::new(ALWAYS);
    let half = row(2);
    let mut client = rig.client(&[&row(1), &half[..half.len() - 1]].concat()).await;
    client.stream.shutdown().await.unwrap();
    assert!(client.answer().await.is_success());
    let answer = client.answer().await;
    assert!(answer.status == 400 && answer.body.contains("broke off"), "{answer:?}");
    client.ends().await;
    assert_eq!(*rig.store.rows.lock(), [row_text(1)]);
}

#[tokio::test]
async fn a_client_that_went_away_holds_nothing_up() {
    let rig = Rig::new(0);
    let client = rig.client(&row(1)).await;
    in_time(rig.store.begun.notified()).await;
    // Closed at once, with a reset.
    client.stream.set_zero_linger().unwrap();
    drop(client.stream);
    in_time(client.server).await.unwrap();
    let dropped = rig.client(&row(2)).await;
    rig.store.permits.add_permits(1);
    in_time(rig.store.begun.notified()).await;
    dropped.server.abort();
    rig.store.permits.add_permits(1);
    let mut next = rig.client(&row(3)).await;
    rig.store.permits.add_permits(1);
    assert!(next.answer().await.is_success());
    assert_eq!(*rig.store.rows.lock(), [row_text(1), row_text(2), row_text(3)]);
}

#[tokio::test]
async fn answers_wait_for_a_client_that_reads_late() {
    let rig = Rig::new(ALWAYS);
    let (stream, served) = pair(Some(4096)).await;
    let express = rig.express(Patience { idle: DEADLINE, hesitation: DEADLINE });
    let server = tokio::spawn(async move {
        matches!(express.serve(served, &sender(), &CancellationToken::new()).await, Next::Ended)
    });
    let (mut read, mut write) = stream.into_split();
    const COUNT: usize = 300;
    let writer = tokio::spawn(async move {
        for number in 0..COUNT {
            // An answer tells of each row, so it is more than the buffers hold.
            let rows = format!("{{\"v\": \"bad {number} {}\"}}", "x".repeat(100)).repeat(99);
            let request = put(&["dbms: d", "table: t", "mode: streaming"], &format!("{rows}{{}}"));
            write.write_all(&request).await.unwrap();
        }
    });
    let stored = async {
        while rig.store.rows.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    in_time(stored).await;
    assert!(!writer.is_finished(), "the server takes no requests while its answers are not taken");
    let mut bytes = Vec::new();
    in_time(read.read_to_end(&mut bytes)).await.unwrap();
    let mut rest = bytes.as_slice();
    for number in 0..COUNT {
        let (answer, length) = answer_in(rest).expect("an answer");
        assert!(answer.status == 200 && answer.body.contains(&format!("bad {number} x")), "{answer:?}");
        rest = &rest[length..];
    }
    assert!(rest.is_empty() && in_time(server).await.unwrap());
}

// R23: whoever reads no answer is left.
#[tokio::test]
async fn a_client_that_never_reads_is_left() {
    let rig = Rig::new(ALWAYS);
    let (mut stream, served) = pair(Some(4096)).await;
    let express = rig.express(Patience { idle: Duration::from_millis(20), hesitation: DEADLINE });
    let server = tokio::spawn(async move { express.serve(served, &sender(), &CancellationToken::new()).await });
    let rows = "{\"v\": \"bad\"}".repeat(99);
    let request = put(&["dbms: d", "table: t", "mode: streaming"], &format!("{rows}{{}}"));
    in_time(async { while stream.write_all(&request).await.is_ok() {} }).await;
    assert!(matches!(in_time(server).await.unwrap(), Next::Ended));
}

#[tokio::test]
async fn a_silent_client_is_left_unless_it_waits_for_the_node() {
    let rig = Rig::new(0);
    let express = rig.express(Patience { idle: Duration::from_millis(1), hesitation: DEADLINE });
    let mut waiting = rig.client_of(&express, &row(1)).await;
    in_time(rig.store.begun.notified()).await;
    let mut silent = rig.client_of(&express, &put(&["dbms: d", "table: full", "mode: streaming"], "{}")).await;
    assert_eq!(silent.answer().await.status, 507);
    silent.ends().await;
    assert!(!waiting.server.is_finished());
    rig.store.permits.add_permits(1);
    assert!(waiting.answer().await.is_success());
    waiting.ends().await;
}

// However small the pieces are, and however often one comes.
#[tokio::test]
async fn a_request_that_does_not_end_is_handed_over() {
    let rig = Rig::new(ALWAYS);
    let begin = put(&["dbms: d", "table: t", "mode: streaming"], &" ".repeat(16_000));
    for (sent, endless) in [(6, false), (begin.len() - 16_000, false), (begin.len() - 16_000, true)] {
        let (mut stream, served) = pair(None).await;
        stream.write_all(&begin[..sent]).await.unwrap();
        let express = rig.express(Patience { idle: DEADLINE, hesitation: Duration::from_millis(1) });
        let server = tokio::spawn(async move { express.serve(served, &sender(), &CancellationToken::new()).await });
        for byte in begin[sent..].chunks(1).filter(|_| endless) {
            if server.is_finished() {
                break;
            }
            stream.write_all(byte).await.unwrap();
            tokio::task::yield_now().await;
        }
        let Next::Begun(begun, ..) = in_time(server).await.unwrap() else { panic!("not handed over") };
        assert!(begun.len() >= sent && begun.len() < begin.len() && begin.starts_with(&begun), "{}", begun.len());
    }
}

#[tokio::test]
async fn the_rest_of_a_slow_request_is_read_by_the_library() {
    let rig = Rig::new(ALWAYS);
    let request = row(1);
    let (begin, end) = request.split_at(request.len() - 3);
    let (mut stream, served) = pair(None).await;
    stream.write_all(begin).await.unwrap();
    let express = rig.express(Patience { idle: DEADLINE, hesitation: Duration::from_millis(1) });
    let Next::Begun(begun, read, write) = in_time(express.serve(served, &sender(), &rig.stop)).await else {
        panic!("not handed over")
    };
    let (rest, stop) = (Arc::clone(&rig.app.rest), rig.stop.clone());
    let server = tokio::spawn(async move { rest.converse(rejoin(begun, read, write), &sender(), &stop).await });
    let mut client = Client { stream, read: Vec::new(), server };
    client.send(&[end, &row(2)].concat()).await;
    assert!(client.answer().await.is_success() && client.answer().await.is_success());
    rig.stop.cancel();
    client.ends().await;
    assert_eq!(*rig.store.rows.lock(), [row_text(1), row_text(2)]);
}

// Whoever answers is another thread than the one that reads: no answer is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_clients_have_all_their_answers() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 200;
    let rig = Rig::new(ALWAYS);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = rig.client(&row(number)).await;
        clients.push(tokio::spawn(async move {
            assert!(client.answer().await.is_success());
            let mut sent = 1;
            while sent < REQUESTS {
                // Alone, and some at once.
                let count = (sent % 4 + 1).min(REQUESTS - sent);
                client.send(&row(number).repeat(count)).await;
                for _ in 0..count {
                    assert!(client.answer().await.is_success());
                }
                sent += count;
            }
            client.stream.shutdown().await.unwrap();
            client.ends().await;
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(rig.store.rows.lock().len(), CLIENTS * REQUESTS);
}

// OPS-2
#[tokio::test]
async fn a_stop_waits_for_the_request_under_way() {
    let rig = Rig::new(0);
    let mut client = rig.client(&row(1)).await;
    in_time(rig.store.begun.notified()).await;
    rig.stop.cancel();
    tokio::task::yield_now().await;
    assert!(!client.server.is_finished());
    rig.store.permits.add_permits(1);
    let answer = client.answer().await;
    assert!(answer.is_success() && answer.closes(), "{answer:?}");
    client.ends().await;
}

#[tokio::test]
async fn a_stop_waits_for_the_request_that_is_coming() {
    let rig = Rig::new(ALWAYS);
    let second = row(2);
    let (begin, end) = second.split_at(second.len() - 3);
    let patient = rig.express(Patience { idle: DEADLINE, hesitation: DEADLINE });
    let mut client = rig.client_of(&patient, &[&row(1), begin].concat()).await;
    assert!(client.answer().await.is_success());
    rig.stop.cancel();
    tokio::task::yield_now().await;
    client.send(end).await;
    let answer = client.answer().await;
    assert!(answer.is_success() && answer.closes(), "{answer:?}");
    client.ends().await;
    // Not for long.
    let hasty = rig.express(Patience { idle: DEADLINE, hesitation: Duration::from_millis(1) });
    rig.client_of(&hasty, begin).await.ends().await;
}

#[tokio::test]
async fn a_stop_ends_idle_connections() {
    let rig = Rig::new(ALWAYS);
    let mut client = rig.client(&row(1)).await;
    assert!(client.answer().await.is_success());
    rig.stop.cancel();
    client.ends().await;
}
